//! TCP: connections that are closed with a reset (`SO_LINGER` with 0 seconds), so that neither side keeps a port in
//! `TIME_WAIT` and runs out of them.

use std::{
    collections::HashMap,
    io::{self, Read as _, Write as _},
    net::{SocketAddrV4, TcpStream},
    time::{Duration, Instant},
};

use nix::{sys::time::TimeSpec, time::ClockId};
use socket2::{Domain, Protocol, Socket, Type};

use super::{Done, Draw, Target, Task};
use crate::server::STAYS;

/// The connections that stay.
#[derive(Debug, Default)]
pub(super) struct Client {
    kept: HashMap<Target, TcpStream>,
}

impl Client {
    pub(super) fn connect(&mut self, task: &Task, draw: &mut Draw) -> io::Result<Done> {
        let clock = Clock::start()?;
        for _ in 0..task.operations {
            drop(open(draw.next(&task.target))?);
        }
        let done = clock.stop()?;
        // The server accepts one after the other: when it answers this one, its queue is empty.
        ask(&open(draw.next(&task.target))?)?;
        Ok(done)
    }

    pub(super) fn request(&mut self, task: &Task, draw: &mut Draw) -> io::Result<Done> {
        let clock = Clock::start()?;
        for _ in 0..task.operations {
            ask(&open(draw.next(&task.target))?)?;
        }
        clock.stop()
    }

    pub(super) fn persistent(&mut self, task: &Task, draw: &mut Draw) -> io::Result<Done> {
        if !self.kept.contains_key(&task.target) {
            let mut stream: TcpStream = open(draw.next(&task.target))?.into();
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(&[STAYS])?;
            stream.read_exact(&mut [0])?;
            self.kept.insert(task.target, stream);
        }
        let Some(mut stream) = self.kept.get(&task.target) else { return Err(io::ErrorKind::NotFound.into()) };
        let mut byte = [b'?'];
        let clock = Clock::start()?;
        for _ in 0..task.operations {
            stream.write_all(&byte)?;
            stream.read_exact(&mut byte)?;
        }
        clock.stop()
    }
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

    pub(super) fn stop(&self) -> io::Result<Done> {
        let wall = self.wall.elapsed();
        let processor = ClockId::CLOCK_PROCESS_CPUTIME_ID.now()? - self.processor;
        let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Ok(Done { nanoseconds: nanoseconds(wall), processor: nanoseconds(processor.into()), storage: 0 })
    }
}
