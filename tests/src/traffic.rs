//! Servers in pods, and clients that ask for their names.
//!
//! The protocol is a line each way: to any request the server answers with its name, the peer that it sees and its own
//! address. A request that begins with `GET ` gets an HTTP response.

mod bulk;
pub mod crowd;
mod datagrams;
mod refused;
mod sidecar;
mod silence;
mod tcp_client;
mod tcp_server;
mod udp_client;
mod udp_server;

use std::{net::SocketAddr, time::Duration};

pub use bulk::{EchoServer, echo_through};
pub use datagrams::echo_datagrams;
pub use refused::assert_refused;
pub use sidecar::Sidecar;
pub use silence::assert_silent;
pub use tcp_client::{Conversation, ask, connect, connect_bound, connect_from};
pub use tcp_server::TcpServer;
pub use udp_client::{Asker, is_refused};
pub use udp_server::UdpServer;

/// The timeout of all sockets, so that no test hangs on a lost packet.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// A server's answer about itself and its client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// The server's name.
    pub server: String,
    /// The client's address as the server saw it.
    pub client: SocketAddr,
    /// The server's own address at which the request arrived.
    pub local: SocketAddr,
}

impl Answer {
    /// Parses a line `name client local`.
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        Some(Self {
            server: words.next()?.to_owned(),
            client: words.next()?.parse().ok()?,
            local: words.next()?.parse().ok()?,
        })
    }
}

/// The address, with a v4-mapped one as IPv4.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
