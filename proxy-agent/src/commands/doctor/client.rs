//! The self-test's client: connects real sockets in the scratch cgroup.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use super::{
    Check,
    scenario::{EMPTY_PORT, PORT, Servers, UNKNOWN_PORT, VIP4, VIP6},
};

const WAIT: Duration = Duration::from_secs(3);

pub(super) fn run(servers: Servers) -> Vec<Check> {
    let v4 = SocketAddr::new(VIP4, PORT);
    let v6 = SocketAddr::new(VIP6, PORT);
    let mapped = match VIP4 {
        IpAddr::V4(vip) => SocketAddr::new(vip.to_ipv6_mapped().into(), PORT),
        IpAddr::V6(_) => v6,
    };
    let any4 = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let any6 = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    vec![
        check("TCP, IPv4: translated", tcp(v4)),
        check("TCP, IPv6: translated", tcp(v6)),
        check("TCP, v4-mapped: translated", tcp(mapped)),
        check("UDP, IPv4: answers come from the VIP", udp(any4, v4)),
        check("UDP, IPv6: answers come from the VIP", udp(any6, v6)),
        check("UDP, v4-mapped: answers come from the VIP", udp(any6, mapped)),
        check("UDP, connected: translated", connected_udp(any4, v4)),
        check("no endpoints: refused", refused(SocketAddr::new(VIP4, EMPTY_PORT))),
        check("no endpoints, IPv6: refused", refused(SocketAddr::new(VIP6, EMPTY_PORT))),
        check("unknown port of a ClusterIP: refused", refused(SocketAddr::new(VIP4, UNKNOWN_PORT))),
        check("no Service: left alone", tcp(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), servers.tcp4))),
    ]
}

fn check(name: &str, result: io::Result<String>) -> Check {
    Check::of(name, result, |detail| detail)
}

/// Connects, exchanges a byte, and checks `getpeername`.
fn tcp(to: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, WAIT)?;
    stream.set_read_timeout(Some(WAIT))?;
    let peer = stream.peer_addr()?;
    let mut answer = [0];
    stream.write_all(b"?")?;
    stream.read_exact(&mut answer)?;
    same(peer, to, "getpeername")
}

/// Sends on an unconnected socket, and checks the answer's source.
fn udp(from: IpAddr, to: SocketAddr) -> io::Result<String> {
    let socket = UdpSocket::bind(SocketAddr::new(from, 0))?;
    socket.set_read_timeout(Some(WAIT))?;
    socket.send_to(b"?", to)?;
    let (_, source) = socket.recv_from(&mut [0; 8])?;
    same(source, to, "recvfrom")
}

fn connected_udp(from: IpAddr, to: SocketAddr) -> io::Result<String> {
    let socket = UdpSocket::bind(SocketAddr::new(from, 0))?;
    socket.set_read_timeout(Some(WAIT))?;
    socket.connect(to)?;
    socket.send(b"?")?;
    let (_, source) = socket.recv_from(&mut [0; 8])?;
    same(source, to, "recvfrom")?;
    same(socket.peer_addr()?, to, "getpeername")
}

fn refused(to: SocketAddr) -> io::Result<String> {
    match TcpStream::connect_timeout(&to, WAIT) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(error.to_string()),
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::other("the connection succeeded")),
    }
}

fn same(found: SocketAddr, expected: SocketAddr, call: &str) -> io::Result<String> {
    if found == expected {
        return Ok(format!("{call} says {found}"));
    }
    Err(io::Error::other(format!("{call} says {found}, not {expected}")))
}
