//! Connects a socket of another process to its Service again: the connect hook chooses a living endpoint, or notes that
//! there is none. The socket keeps its own address and port, and its owner notices nothing.

use std::{
    io,
    net::{IpAddr, SocketAddr, SocketAddrV6},
    os::fd::OwnedFd,
};

use proxy_common::{Address, Port, Protocol};
use socket2::{Domain, SockRef};

/// Connects the socket to a frontend. `false` for one that is not UDP.
pub(super) fn connect_again(socket: &OwnedFd, frontend: Address, port: Port) -> io::Result<bool> {
    let socket = SockRef::from(socket);
    if socket.protocol()?.is_none_or(|protocol| i32::from(protocol) != i32::from(Protocol::Udp as u8)) {
        return Ok(false);
    }
    let port = port.get();
    let frontend = match IpAddr::from(frontend) {
        // A socket of both families names IPv4 addresses so.
        IpAddr::V4(v4) if socket.domain()? == Domain::IPV6 => {
            SocketAddr::V6(SocketAddrV6::new(v4.to_ipv6_mapped(), port, 0, 0))
        }
        address => SocketAddr::new(address, port),
    };
    socket.connect(&frontend.into())?;
    Ok(true)
}
