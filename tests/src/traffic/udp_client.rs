//! A UDP client.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::atomic::{AtomicU64, Ordering},
};

use socket2::{Domain, Protocol, Socket, Type};

use super::{Answer, PATIENCE};

/// A UDP socket that sends requests, connected or not.
#[derive(Debug)]
pub struct Asker {
    socket: UdpSocket,
}

impl Asker {
    /// A socket for IPv4.
    pub fn v4() -> io::Result<Self> {
        Self::bound(Domain::IPV4, (Ipv4Addr::UNSPECIFIED, 0).into())
    }

    /// A socket for IPv6, and for v4-mapped addresses.
    pub fn v6() -> io::Result<Self> {
        Self::bound(Domain::IPV6, (Ipv6Addr::UNSPECIFIED, 0).into())
    }

    /// A socket bound to this local address and port.
    pub fn bound_to(local: SocketAddr) -> io::Result<Self> {
        Self::bound(Domain::for_address(local), local)
    }

    /// A socket of the family of `address`.
    pub fn for_address(address: SocketAddr) -> io::Result<Self> {
        if address.is_ipv4() { Self::v4() } else { Self::v6() }
    }

    fn bound(domain: Domain, local: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        if domain == Domain::IPV6 {
            socket.set_only_v6(false)?;
        }
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.bind(&local.into())?;
        Ok(Self { socket: socket.into() })
    }

    /// The socket.
    pub const fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// The socket itself, without a timeout.
    pub fn into_socket(self) -> io::Result<UdpSocket> {
        self.socket.set_read_timeout(None)?;
        Ok(self.socket)
    }

    /// Connects the socket.
    pub fn connect(&self, address: SocketAddr) -> io::Result<()> {
        self.socket.connect(address)
    }

    /// Sends a request with `sendto` and reads with `recvfrom`; returns the answer and the source that the program
    /// sees.
    pub fn ask(&self, address: SocketAddr) -> io::Result<(Answer, SocketAddr)> {
        let question = question();
        self.socket.send_to(question.as_bytes(), address)?;
        self.answer(&question)
    }

    /// Sends a request to the connected peer with `send`, and reads with `recvfrom`, which returns the source, too.
    pub fn ask_peer(&self) -> io::Result<(Answer, SocketAddr)> {
        let question = question();
        self.socket.send(question.as_bytes())?;
        self.answer(&question)
    }

    /// Reads until the answer to this question arrives; skips late answers to earlier ones.
    fn answer(&self, question: &str) -> io::Result<(Answer, SocketAddr)> {
        let mut buffer = [0; 1024];
        loop {
            let (length, source) = self.socket.recv_from(&mut buffer)?;
            let text = String::from_utf8_lossy(&buffer[..length]);
            if text.ends_with(question)
                && let Some(answer) = Answer::parse(&text)
            {
                return Ok((answer, source));
            }
        }
    }
}

/// Whether a call failed with ECONNREFUSED.
pub fn is_refused<T>(result: &io::Result<T>) -> bool {
    matches!(result, Err(error) if error.kind() == io::ErrorKind::ConnectionRefused)
}

/// A question that is unique in this process.
fn question() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("question-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}
