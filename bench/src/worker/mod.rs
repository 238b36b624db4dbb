//! The processes that generate the traffic, and their protocol: one JSON task per line, one JSON answer per line.

mod flood;
mod process;
mod tcp;
mod udp;

use std::{
    io::{BufRead as _, Write as _},
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::RawFd,
    time::Duration,
};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::{place, sink::Sink};

use flood::Flood;
pub(crate) use process::Worker;

/// A run of addresses, each with a run of ports: each operation draws one of them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub(crate) struct Target {
    /// The first address.
    pub(crate) address: Ipv4Addr,
    /// How many addresses follow one another.
    pub(crate) addresses: u32,
    /// The first port.
    pub(crate) port: u16,
    /// How many ports follow one another.
    pub(crate) ports: u16,
}

/// What one operation is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Workload {
    /// TCP: connect, close.
    Connect,
    /// TCP: connect, send a byte, receive a byte, close.
    Request,
    /// TCP: send a byte and receive a byte on a connection that stays.
    Persistent,
    /// UDP: socket, connect, close; no packet is sent.
    FreshPeer,
    /// UDP: connect a socket that stays; no packet is sent.
    NextPeer,
    /// UDP: send a datagram with its destination and receive the answer, on one socket that stays.
    Datagram {
        /// How many threads use the socket at the same time.
        threads: u32,
    },
    /// UDP: connect sockets and keep them; counts what the kernel charged for their storage.
    Keep,
    /// UDP: send small datagrams as fast as it goes. An operation is a datagram that arrived.
    Saturate {
        /// The place of the sink in which they arrive.
        sink: usize,
        /// How long.
        milliseconds: u16,
    },
    /// UDP: send small datagrams at a rate. An operation is one that was sent; counts those that arrived.
    Offer {
        /// The place of the sink in which they arrive.
        sink: usize,
        /// How long.
        milliseconds: u16,
        /// Datagrams a second.
        rate: u32,
    },
    /// TCP: ask for the address that the server sees; counts nothing.
    Who,
    /// UDP: the same.
    DatagramWho,
}

/// A worker's task.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Task {
    /// The operation.
    pub(crate) workload: Workload,
    /// Where to.
    pub(crate) target: Target,
    /// How often; floods last for a time instead.
    pub(crate) operations: u32,
}

/// The result of a task.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Done {
    /// Nanoseconds for all operations together.
    pub(crate) nanoseconds: u64,
    /// Nanoseconds of processor time that the worker took for them: its own, and that of the packets that the kernel
    /// worked on in its name. Time in which other processes ran is not in it.
    pub(crate) processor: u64,
    /// How many operations.
    pub(crate) operations: u64,
    /// What the workload counts.
    pub(crate) counted: u64,
    /// The client's address as the server sees it, where that was asked for.
    pub(crate) seen: Option<Ipv4Addr>,
}

impl Done {
    /// Wall time of one operation in nanoseconds.
    pub(crate) fn each(&self) -> f64 {
        self.nanoseconds as f64 / self.operations as f64
    }
}

/// A worker's answer.
type Answer = Result<Done, String>;

/// Draws addresses. The same arithmetic for every target, so that it costs all of them the same.
#[derive(Debug)]
struct Draw(u64);

impl Draw {
    fn next(&mut self, target: &Target) -> SocketAddrV4 {
        // xorshift64
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let Target { address, addresses, port, ports } = *target;
        let index = ((self.0 >> 32) * u64::from(addresses) * u64::from(ports)) >> 32;
        let step = u32::try_from(index / u64::from(ports)).unwrap_or_default();
        let port_step = u16::try_from(index % u64::from(ports)).unwrap_or_default();
        SocketAddrV4::new(Ipv4Addr::from_bits(address.to_bits().wrapping_add(step)), port + port_step)
    }
}

/// The worker's side, on this processor: answers tasks until its standard input ends. What arrives in sinks, it can
/// read.
pub(crate) fn main(processor: usize, sinks: &[RawFd]) -> Result<()> {
    let mut flood = flood::Client::new(sinks.iter().map(|&sink| Sink::inherited(sink)).collect());
    let mut udp = udp::Client::new(place::allowed()?);
    place::pin(processor)?;
    let mut draw = Draw(0x9e37_79b9_7f4a_7c15);
    let mut tcp = tcp::Client::default();
    let mut output = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let task: Task = serde_json::from_str(&line?)?;
        let done = match task.workload {
            Workload::Connect => tcp::connect(&task, &mut draw),
            Workload::Request => tcp::request(&task, &mut draw),
            Workload::Persistent => tcp.persistent(&task, &mut draw),
            Workload::FreshPeer => udp::fresh(&task, &mut draw),
            Workload::NextPeer => udp.next(&task, &mut draw),
            Workload::Datagram { threads } => udp.datagrams(&task, threads, &mut draw),
            Workload::Keep => udp.keep(&task, &mut draw),
            Workload::Saturate { sink, milliseconds } => {
                let time = Duration::from_millis(milliseconds.into());
                flood.run(Flood { sink, rate: None, time }, &task.target, &mut draw)
            }
            Workload::Offer { sink, milliseconds, rate } => {
                let time = Duration::from_millis(milliseconds.into());
                flood.run(Flood { sink, rate: Some(rate), time }, &task.target, &mut draw)
            }
            Workload::Who => tcp::who(&task, &mut draw),
            Workload::DatagramWho => udp::who(&task, &mut draw),
        };
        let answer: Answer = done.map_err(|error| format!("{task:?}: {error}"));
        writeln!(output, "{}", serde_json::to_string(&answer)?)?;
        output.flush()?;
    }
    Ok(())
}
