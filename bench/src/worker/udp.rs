//! UDP: connects that send nothing, and datagrams on an unconnected socket.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    os::fd::AsRawFd as _,
    sync::Barrier,
    thread,
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};

use super::{Done, Draw, Task, tcp::Clock};
use crate::{place, protocol::WHO, sink::option_memory};

/// The sockets that stay.
#[derive(Debug)]
pub(super) struct Client {
    processors: Vec<usize>,
    connected: Option<Socket>,
    unconnected: Option<UdpSocket>,
    kept: Vec<Socket>,
}

impl Client {
    /// A client whose threads, where a task asks for several, are spread over these processors.
    pub(super) fn new(processors: Vec<usize>) -> Self {
        Self { processors, connected: None, unconnected: None, kept: Vec::new() }
    }

    pub(super) fn next(&mut self, task: &Task, draw: &mut Draw) -> io::Result<Done> {
        let socket = match self.connected.take() {
            Some(socket) => socket,
            None => datagram_socket()?,
        };
        // Once outside of what is measured, so that the storage is there.
        socket.connect(&draw.next(&task.target).into())?;
        let clock = Clock::start()?;
        for _ in 0..task.operations {
            socket.connect(&draw.next(&task.target).into())?;
        }
        let done = clock.stop(task.operations.into())?;
        self.connected = Some(socket);
        Ok(done)
    }

    pub(super) fn datagrams(&mut self, task: &Task, threads: u32, draw: &mut Draw) -> io::Result<Done> {
        if self.unconnected.is_none() {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.set_read_timeout(Some(Duration::from_secs(1)))?;
            self.unconnected = Some(socket);
        }
        let Some(socket) = &self.unconnected else { return Err(io::ErrorKind::NotFound.into()) };
        let destination = draw.next(&task.target);
        if threads <= 1 {
            let clock = Clock::start()?;
            exchange(socket, destination, task.operations)?;
            return clock.stop(task.operations.into());
        }
        let processors = &self.processors;
        let barrier = Barrier::new(threads as usize + 1);
        thread::scope(|scope| {
            let running: Vec<_> = (0..threads as usize)
                .map(|number| {
                    let (barrier, processor) = (&barrier, processors[number % processors.len()]);
                    scope.spawn(move || {
                        let pinned = place::pin(processor);
                        barrier.wait();
                        pinned?;
                        exchange(socket, destination, task.operations / threads)
                    })
                })
                .collect();
            barrier.wait();
            let clock = Clock::start()?;
            for thread in running {
                thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))?;
            }
            clock.stop(task.operations.into())
        })
    }

    pub(super) fn keep(&mut self, task: &Task, draw: &mut Draw) -> io::Result<Done> {
        self.kept.clear();
        let clock = Clock::start()?;
        let mut storage = 0;
        for _ in 0..task.operations {
            let socket = datagram_socket()?;
            socket.connect(&draw.next(&task.target).into())?;
            storage += option_memory(socket.as_raw_fd())?;
            self.kept.push(socket);
        }
        self.kept.clear();
        Ok(Done { counted: storage, ..clock.stop(task.operations.into())? })
    }
}

/// Connects a new socket each time.
pub(super) fn fresh(task: &Task, draw: &mut Draw) -> io::Result<Done> {
    let clock = Clock::start()?;
    for _ in 0..task.operations {
        datagram_socket()?.connect(&draw.next(&task.target).into())?;
    }
    clock.stop(task.operations.into())
}

/// Asks who the server takes this for.
pub(super) fn who(task: &Task, draw: &mut Draw) -> io::Result<Done> {
    let clock = Clock::start()?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    socket.connect(draw.next(&task.target))?;
    socket.send(&[WHO])?;
    let mut address = [0; 4];
    socket.recv(&mut address)?;
    Ok(Done { seen: Some(address.into()), ..clock.stop(1)? })
}

fn datagram_socket() -> io::Result<Socket> {
    Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))
}

/// Sends and receives. An answer that is lost ends in the socket's time limit, which one slow turn shows; answers
/// that another thread took are made up for by those that this one takes.
fn exchange(socket: &UdpSocket, destination: SocketAddrV4, times: u32) -> io::Result<()> {
    let mut buffer = [0; 64];
    for _ in 0..times {
        socket.send_to(b"?", destination)?;
        match socket.recv_from(&mut buffer) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
