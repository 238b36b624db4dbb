//! Datagrams larger than a packet, to a server that echoes them.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};

/// Lengths below and far above a packet, in turns.
const LENGTHS: [usize; 7] = [2000, 100, 8000, 1400, 2000, 8000, 60_000];
/// How often a datagram is sent: once for each direction's smaller MTU to be reported, and once more.
const ATTEMPTS: usize = 3;

/// Has a UDP server echo datagrams of each length, on one socket, so that whole packets and fragments share a flow.
pub fn echo_datagrams(address: SocketAddr) -> io::Result<()> {
    let any = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    socket.connect(address)?;
    LENGTHS.into_iter().try_for_each(|length| {
        echo(&socket, length).map_err(|error| io::Error::other(format!("{length} bytes: {error}")))
    })
}

/// Sends `length` bytes, again if they are lost: in IPv6 only the sender fragments, and where a VXLAN is on the way it
/// learns the MTU from an ICMP error about a fragment.
fn echo(socket: &UdpSocket, length: usize) -> io::Result<()> {
    let question: Vec<u8> = (0..=250).cycle().take(length).collect();
    let mut buffer = vec![0; 1 << 16];
    let mut lost = None;
    for _ in 0..ATTEMPTS {
        socket.send(&question)?;
        match socket.recv(&mut buffer) {
            Ok(received) if buffer[..received].ends_with(&question) => return Ok(()),
            Ok(received) => return Err(io::Error::other(format!("{received} other bytes came"))),
            Err(error) => lost = Some(error),
        }
    }
    Err(lost.unwrap_or_else(|| io::ErrorKind::TimedOut.into()))
}
