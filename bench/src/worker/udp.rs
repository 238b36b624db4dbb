//! UDP: connects that send nothing, and datagrams of a socket that is not connected.

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
use crate::place;

/// Index of `SK_MEMINFO_OPTMEM` in the answer to `SO_MEMINFO` (`include/uapi/linux/sock_diag.h`).
const OPTION_MEMORY: usize = 6;
/// Length of that answer.
const MEMORY_FIELDS: usize = 9;

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
        let done = clock.stop()?;
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
            return clock.stop();
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
            clock.stop()
        })
    }

    pub(super) fn keep(&mut self, task: &Task, draw: &mut Draw) -> io::Result<Done> {
        self.kept.clear();
        let mut storage = 0;
        for _ in 0..task.operations {
            let socket = datagram_socket()?;
            socket.connect(&draw.next(&task.target).into())?;
            storage += option_memory(&socket)?;
            self.kept.push(socket);
        }
        self.kept.clear();
        Ok(Done { nanoseconds: 0, processor: 0, storage })
    }
}

/// Connects a new socket each time.
pub(super) fn fresh(task: &Task, draw: &mut Draw) -> io::Result<Done> {
    let clock = Clock::start()?;
    for _ in 0..task.operations {
        datagram_socket()?.connect(&draw.next(&task.target).into())?;
    }
    clock.stop()
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

/// Bytes that the kernel charged to the socket for storage and options (`sk_omem_alloc`).
fn option_memory(socket: &Socket) -> io::Result<u64> {
    let mut fields = [0_u32; MEMORY_FIELDS];
    let mut length = libc::socklen_t::try_from(size_of_val(&fields)).unwrap_or_default();
    // SAFETY: the option writes at most `length` bytes to `fields`, which outlives the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            fields.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(u64::from(fields[OPTION_MEMORY])) } else { Err(io::Error::last_os_error()) }
}
