//! UDP in one direction, open loop: the sender never waits for answers.
//!
//! Each send passes the kernel one block to cut into datagrams (`UDP_SEGMENT`); otherwise sending would cost more
//! than the path. The device must not take such a block whole (`tx-udp-segmentation off`).

use std::{
    collections::{HashMap, hash_map::Entry},
    io,
    net::{Ipv4Addr, UdpSocket},
    time::{Duration, Instant},
};

use nix::sys::socket::{setsockopt, sockopt::UdpGsoSegment};

use super::{Done, Draw, Target, tcp::Clock};
use crate::sink::{FLOOD, Sink};

/// How many sockets take turns.
const FLOWS: usize = 64;
/// Bytes in a datagram: with its headers it fills the smallest Ethernet frame.
const BYTES: usize = 18;
/// Datagrams in one send.
const BLOCK: usize = 8;
/// A sender that is further behind than this does not catch up, as that would be a burst.
const LATE: Duration = Duration::from_micros(50);
/// A datagram that has not arrived within this time is lost.
const SETTLED: Duration = Duration::from_millis(1);

/// The sockets that stay, and where their datagrams arrive.
#[derive(Debug)]
pub(super) struct Client {
    sinks: Vec<Sink>,
    flows: HashMap<Target, Vec<UdpSocket>>,
}

/// A flood.
#[derive(Clone, Copy)]
pub(super) struct Flood {
    /// Place of the sink in which it ends.
    pub(super) sink: usize,
    /// Datagrams a second; as many as go where there is none.
    pub(super) rate: Option<u32>,
    /// How long it lasts.
    pub(super) time: Duration,
}

impl Client {
    pub(super) fn new(sinks: Vec<Sink>) -> Self {
        Self { sinks, flows: HashMap::new() }
    }

    pub(super) fn run(&mut self, flood: Flood, target: &Target, draw: &mut Draw) -> io::Result<Done> {
        let sink = self.sinks.get(flood.sink).ok_or(io::ErrorKind::NotFound)?;
        let flows = match self.flows.entry(*target) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert(open(target, draw)?),
        };
        match flood.rate {
            Some(rate) => offer(flows, sink, rate, flood.time),
            None => saturate(flows, sink, flood.time),
        }
    }
}

/// Offers datagrams at this rate: how many were sent, and how many of them arrived.
fn offer(flows: &[UdpSocket], sink: &Sink, rate: u32, time: Duration) -> io::Result<Done> {
    let pause = Duration::from_secs(BLOCK as u64) / rate.max(1);
    let before = sink.arrived()?;
    let clock = Clock::start()?;
    let start = Instant::now();
    let (mut blocks, mut due) = (0, start);
    for flow in flows.iter().cycle() {
        let mut now = Instant::now();
        while now < due {
            std::hint::spin_loop();
            now = Instant::now();
        }
        if now - start >= time {
            break;
        }
        due = if now - due > LATE { now } else { due } + pause;
        send(flow)?;
        blocks += 1;
    }
    let done = clock.stop(blocks * BLOCK as u64)?;
    let arrived = settled(sink)?.wrapping_sub(before);
    Ok(Done { counted: u64::from(arrived), ..done })
}

/// Sends as fast as it goes: how many datagrams arrived in how long, counted once everything on the way is full.
fn saturate(flows: &[UdpSocket], sink: &Sink, time: Duration) -> io::Result<Done> {
    let mut flows = flows.iter().cycle();
    let mut send_for = |time: Duration| -> io::Result<()> {
        let start = Instant::now();
        while start.elapsed() < time {
            flows.next().map_or(Ok(()), send)?;
        }
        Ok(())
    };
    send_for(time / 5)?;
    let before = sink.arrived()?;
    let clock = Clock::start()?;
    send_for(time * 4 / 5)?;
    let arrived = sink.arrived()?.wrapping_sub(before);
    let done = clock.stop(u64::from(arrived))?;
    settled(sink)?;
    Ok(done)
}

/// How many have arrived once no more do.
fn settled(sink: &Sink) -> io::Result<u32> {
    let mut arrived = sink.arrived()?;
    let mut since = Instant::now();
    while since.elapsed() < SETTLED {
        let now = sink.arrived()?;
        if now != arrived {
            (arrived, since) = (now, Instant::now());
        }
    }
    Ok(arrived)
}

fn send(flow: &UdpSocket) -> io::Result<()> {
    flow.send(&[FLOOD; BYTES * BLOCK]).map(drop)
}

/// Sockets whose first datagram was answered: flows in both directions, as those of a protocol with answers.
fn open(target: &Target, draw: &mut Draw) -> io::Result<Vec<UdpSocket>> {
    let open = |_| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        socket.connect(draw.next(target))?;
        for _ in 0..2 {
            socket.send(b"?")?;
            socket.recv(&mut [0; 8])?;
        }
        let bytes = i32::try_from(BYTES).unwrap_or(i32::MAX);
        setsockopt(&socket, UdpGsoSegment, &bytes).map_err(io::Error::from)?;
        Ok(socket)
    };
    (0..FLOWS).map(open).collect()
}
