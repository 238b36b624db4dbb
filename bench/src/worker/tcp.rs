//! TCP: connections that are closed with a reset (`SO_LINGER` with 0 seconds), so that neither side keeps a port in
//! `TIME_WAIT` and runs out of them.

use std::{
    collections::{HashMap, hash_map::Entry},
    io::{self, Read as _, Write as _},
    net::{SocketAddrV4, TcpStream},
    time::{Duration, Instant},
};

use nix::{sys::time::TimeSpec, time::ClockId};
use socket2::{Domain, Protocol, Socket, Type};

use super::{Done, Draw, Target, Task};
use crate::protocol::{STAYS, WHO};

/// The connections that stay.
#[derive(Debug, Default)]
pub(super) struct Client {
    kept: HashMap<Target, TcpStream>,
}

impl Client {
    pub(super) fn persistent(&mut self, task: &Task, draw: &mut Draw) -> io::Result<Done> {
        let stream = match self.kept.entry(task.target) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert(stay(draw.next(&task.target))?),
        };
        let mut byte = [b'?'];
        let clock = Clock::start()?;
        for _ in 0..task.operations {
            stream.write_all(&byte)?;
            stream.read_exact(&mut byte)?;
        }
        clock.stop(task.operations.into())
    }
}

/// Connects and closes.
pub(super) fn connect(task: &Task, draw: &mut Draw) -> io::Result<Done> {
    let clock = Clock::start()?;
    for _ in 0..task.operations {
        drop(open(draw.next(&task.target))?);
    }
    let done = clock.stop(task.operations.into())?;
    // The server accepts one after the other: when it answers this one, its queue is empty.
    ask(&open(draw.next(&task.target))?)?;
    Ok(done)
}

/// Connects, asks and closes.
pub(super) fn request(task: &Task, draw: &mut Draw) -> io::Result<Done> {
    let clock = Clock::start()?;
    for _ in 0..task.operations {
        ask(&open(draw.next(&task.target))?)?;
    }
    clock.stop(task.operations.into())
}

/// Asks who the server takes this for.
pub(super) fn who(task: &Task, draw: &mut Draw) -> io::Result<Done> {
    let clock = Clock::start()?;
    let mut stream: TcpStream = open(draw.next(&task.target))?.into();
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(&[WHO])?;
    let mut address = [0; 4];
    stream.read_exact(&mut address)?;
    Ok(Done { seen: Some(address.into()), ..clock.stop(1)? })
}

fn stay(address: SocketAddrV4) -> io::Result<TcpStream> {
    let mut stream: TcpStream = open(address)?.into();
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(&[STAYS])?;
    stream.read_exact(&mut [0])?;
    Ok(stream)
}

fn open(address: SocketAddrV4) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_linger(Some(Duration::ZERO))?;
    socket.connect(&address.into())?;
    Ok(socket)
}

fn ask(mut socket: &Socket) -> io::Result<()> {
    let mut byte = [b'?'];
    socket.write_all(&byte)?;
    socket.read_exact(&mut byte)
}

/// Two clocks, started together.
pub(super) struct Clock {
    wall: Instant,
    processor: TimeSpec,
}

impl Clock {
    pub(super) fn start() -> io::Result<Self> {
        let processor = ClockId::CLOCK_PROCESS_CPUTIME_ID.now()?;
        Ok(Self { wall: Instant::now(), processor })
    }

    /// What so many operations took.
    pub(super) fn stop(&self, operations: u64) -> io::Result<Done> {
        let wall = self.wall.elapsed();
        let processor = ClockId::CLOCK_PROCESS_CPUTIME_ID.now()? - self.processor;
        let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Ok(Done {
            nanoseconds: nanoseconds(wall),
            processor: nanoseconds(processor.into()),
            operations,
            counted: 0,
            seen: None,
        })
    }
}
