//! The addresses of TCP segments and UDP datagrams that pass a device.

use std::{
    io::{ErrorKind, Read},
    net::{IpAddr, SocketAddr},
};

use anyhow::{Context, Result, bail};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use socket2::Socket;

use crate::{place::Place, sockets};

/// The buffer for packets not yet read, in bytes.
const ROOM: usize = 8 << 20;
/// The longest packet, which a device will segment.
const LONGEST: usize = 1 << 18;

/// A TCP or UDP packet; of a datagram's fragments only the first one has ports.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Seen {
    /// Its source.
    pub source: SocketAddr,
    /// Its destination.
    pub destination: SocketAddr,
}

/// Sees all packets of a device, sent and received, from its creation on.
#[derive(Debug)]
pub struct Wiretap {
    socket: Socket,
}

impl Wiretap {
    /// A wiretap at a device of a place.
    pub fn on(place: &Place, device: &str) -> Result<Self> {
        let socket = place.namespace().run(|| sockets::packets(device, libc::ETH_P_ALL))?;
        let socket = socket.with_context(|| format!("packets of {device} in {}", place.name()))?;
        socket.set_nonblocking(true)?;
        sockets::set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, ROOM.try_into()?)?;
        Ok(Self { socket })
    }

    /// The packets since the last call.
    pub fn seen(&self) -> Result<Vec<Seen>> {
        let (mut buffer, mut seen) = (vec![0; LONGEST], Vec::new());
        loop {
            match (&self.socket).read(&mut buffer) {
                Ok(length) => seen.extend(parse(&buffer[..length])),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(seen),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => bail!("a wiretap: {error}"),
            }
        }
    }
}

fn parse(frame: &[u8]) -> Option<Seen> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let [source, destination]: [IpAddr; 2] = match packet.net? {
        NetSlice::Ipv4(ip) => [ip.header().source_addr().into(), ip.header().destination_addr().into()],
        NetSlice::Ipv6(ip) => [ip.header().source_addr().into(), ip.header().destination_addr().into()],
        NetSlice::Arp(_) => return None,
    };
    let ports = match packet.transport? {
        TransportSlice::Tcp(tcp) => [tcp.source_port(), tcp.destination_port()],
        TransportSlice::Udp(udp) => [udp.source_port(), udp.destination_port()],
        TransportSlice::Icmpv4(_) | TransportSlice::Icmpv6(_) | TransportSlice::Igmp(_) => return None,
    };
    Some(Seen {
        source: SocketAddr::new(source, ports[0]),
        destination: SocketAddr::new(destination, ports[1]),
    })
}

#[cfg(test)]
mod tests {
    use super::parse;
    use crate::packets::{Datagram, ethernet};

    #[test]
    fn addresses_and_ports_are_those_of_the_packet() {
        for [source, destination] in [["192.0.2.1:1", "192.0.2.2:2"], ["[2001:db8::1]:1", "[2001:db8::2]:2"]]
        {
            let [source, destination] = [source, destination].map(|text| text.parse().expect("an address"));
            let datagram = Datagram::udp(source, destination, vec![7; 9]);
            let seen = parse(&ethernet(&datagram.packet())).expect("a datagram");
            assert_eq!((seen.source, seen.destination), (source, destination));
        }
        assert_eq!(parse(&[0; 14]), None);
    }
}
