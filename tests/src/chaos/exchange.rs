//! One question and its answer, over TCP and over UDP.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use super::servers::{ANSWER, QUESTION};

/// An exchange that takes longer is no answer. A lost segment is sent again within a second, a lost SYN after 1 and 3.
pub(super) const STALL: Duration = Duration::from_secs(6);
/// How long a client waits for the answer to a datagram before it asks again.
const PATIENCE: Duration = Duration::from_millis(1200);

/// An answer: the number of the endpoint, and how long it took.
pub(super) type Answer = io::Result<(u8, Duration)>;

/// Connects, and asks once.
pub(super) async fn connect(address: SocketAddr) -> io::Result<(TcpStream, u8, Duration)> {
    let start = Instant::now();
    let work = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let endpoint = exchange(&mut stream).await?;
        Ok((stream, endpoint, start.elapsed()))
    };
    timeout(STALL, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Asks once more.
pub(super) async fn ask(stream: &mut TcpStream) -> Answer {
    let start = Instant::now();
    let endpoint = timeout(STALL, exchange(stream)).await;
    endpoint
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map(|endpoint| (endpoint, start.elapsed()))
}

async fn exchange(stream: &mut TcpStream) -> io::Result<u8> {
    let question = question();
    let mut answer = [0; ANSWER];
    stream.write_all(&question).await?;
    stream.read_exact(&mut answer).await?;
    if answer[..QUESTION] == question {
        Ok(answer[QUESTION])
    } else {
        Err(wrong("another question's answer"))
    }
}

/// A UDP client.
#[derive(Debug)]
pub(super) struct Asker {
    socket: UdpSocket,
    address: SocketAddr,
    connected: bool,
    /// Datagrams that were not answered in time, and sent again.
    pub(super) repeated: u64,
}

impl Asker {
    pub(super) async fn new(address: SocketAddr, connected: bool) -> io::Result<Self> {
        let any = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
        if connected {
            socket.connect(address).await?;
        }
        Ok(Self { socket, address, connected, repeated: 0 })
    }

    /// Asks until there is an answer: datagrams may get lost.
    pub(super) async fn ask(&mut self) -> Answer {
        let start = Instant::now();
        loop {
            let question = question();
            // An error is about an earlier datagram.
            if self.connected {
                self.socket.send(&question).await?;
            } else {
                self.socket.send_to(&question, self.address).await?;
            }
            match timeout(PATIENCE, self.answer(&question)).await {
                Ok(endpoint) => return Ok((endpoint?, start.elapsed())),
                Err(_) if start.elapsed() + PATIENCE > STALL => return Err(io::ErrorKind::TimedOut.into()),
                Err(_) => self.repeated += 1,
            }
        }
    }

    /// Reads until the answer to this question; skips late ones to earlier ones.
    async fn answer(&self, question: &[u8]) -> io::Result<u8> {
        let mut answer = [0; ANSWER];
        loop {
            let (length, from) = self.socket.recv_from(&mut answer).await?;
            if from != self.address {
                return Err(wrong(&format!("an answer from {from}")));
            }
            if length == ANSWER && answer[..QUESTION] == *question {
                return Ok(answer[QUESTION]);
            }
        }
    }
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// A question that is unique in this process.
fn question() -> [u8; QUESTION] {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes()
}
