//! The processes that make the traffic, and their language: one JSON task a line, one JSON answer a line.

mod process;
mod tcp;
mod udp;

use std::{
    io::{BufRead as _, Write as _},
    net::{Ipv4Addr, SocketAddrV4},
};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::place;

pub(crate) use process::Worker;

/// A run of addresses with one port: each operation draws one of them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub(crate) struct Target {
    /// The first address.
    pub(crate) first: Ipv4Addr,
    /// How many addresses follow one another.
    pub(crate) count: u32,
    /// The port.
    pub(crate) port: u16,
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
    /// UDP: connect sockets and keep them; the answer is what the kernel charged for their storage.
    Keep,
}

/// What a worker is asked to do.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Task {
    /// The operation.
    pub(crate) workload: Workload,
    /// Where to.
    pub(crate) target: Target,
    /// How often.
    pub(crate) operations: u32,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Done {
    /// Nanoseconds for all operations together.
    pub(crate) nanoseconds: u64,
    /// Nanoseconds of processor time that the worker took for them: its own, and that of the packets that the kernel
    /// worked on in its name. Time in which other processes ran is not in it.
    pub(crate) processor: u64,
    /// Bytes of storage of all sockets together; only of [`Workload::Keep`].
    pub(crate) storage: u64,
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
        let index = ((self.0 >> 32) * u64::from(target.count)) >> 32;
        let address = target.first.to_bits().wrapping_add(u32::try_from(index).unwrap_or_default());
        SocketAddrV4::new(Ipv4Addr::from_bits(address), target.port)
    }
}

/// The worker's side, on this processor: answers tasks until its standard input ends.
pub(crate) fn main(processor: usize) -> Result<()> {
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
        };
        let answer: Answer = done.map_err(|error| format!("{task:?}: {error}"));
        writeln!(output, "{}", serde_json::to_string(&answer)?)?;
        output.flush()?;
    }
    Ok(())
}
