//! Endpoints. A question is a number of eight bytes; the answer repeats it, and adds the number of the endpoint.

use std::{
    io,
    net::{Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    time::timeout,
};

use crate::{
    cluster::{DNS_PORT, HTTP_PORT},
    place::Place,
};

/// The length of a question, in bytes.
pub(super) const QUESTION: usize = 8;
/// The length of an answer.
pub(super) const ANSWER: usize = QUESTION + 1;
/// A socket's receive buffer, in bytes: room for what comes while the machine is busy.
const ROOM: libc::c_int = 8 << 20;
/// How often a server looks whether to stop.
const TICK: Duration = Duration::from_millis(100);

/// An endpoint's servers for TCP and UDP; they stop on drop.
#[derive(Debug)]
pub(super) struct Server {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Server {
    pub(super) fn start(place: &Place, number: u8) -> Result<Self> {
        let (listener, socket) =
            place.run(|| Ok::<_, io::Error>((listen()?, bind()?))).context("a server")?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let serve = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(serve(listener, socket, number, &stopped)).context("an endpoint")
        };
        let thread = thread::Builder::new().name(format!("server-{number}")).spawn(serve)?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && let Ok(Err(error)) = thread.join()
        {
            eprintln!("{error:#}");
        }
    }
}

async fn serve(
    listener: std::net::TcpListener,
    socket: std::net::UdpSocket,
    number: u8,
    stop: &AtomicBool,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let socket = UdpSocket::from_std(socket)?;
    tokio::spawn(async move {
        let mut buffer = [0; ANSWER];
        loop {
            // An error is about a client that is gone.
            if let Ok((QUESTION, client)) = socket.recv_from(&mut buffer).await {
                buffer[QUESTION] = number;
                let _ = socket.send_to(&buffer, client).await;
            }
        }
    });
    while !stop.load(Ordering::Relaxed) {
        if let Ok(Ok((stream, _))) = timeout(TICK, listener.accept()).await {
            // An error is a client that is gone.
            tokio::spawn(talk(stream, number));
        }
    }
    Ok(())
}

async fn talk(mut stream: TcpStream, number: u8) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = [0; ANSWER];
    loop {
        stream.read_exact(&mut buffer[..QUESTION]).await?;
        buffer[QUESTION] = number;
        stream.write_all(&buffer).await?;
    }
}

fn listen() -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_only_v6(false)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, HTTP_PORT)).into())?;
    socket.listen(4096)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn bind() -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_only_v6(false)?;
    crate::sockets::set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, ROOM)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, DNS_PORT)).into())?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}
