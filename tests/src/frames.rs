//! Frames that no socket of `outside` would send: with spoofed sources, loopback addresses, or VLAN tags.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, bail};
use etherparse::{IpHeaders, PacketBuilder, PacketBuilderStep};
use socket2::Socket;

use crate::{sockets, two_nodes::TwoNodes};

/// Sends frames from `outside` directly to the node's uplink.
#[derive(Debug)]
pub struct FrameSender {
    socket: Socket,
    outside: [u8; 6],
    node: [u8; 6],
    frame: Vec<u8>,
}

impl FrameSender {
    /// A sender on `outside`'s device.
    pub fn new(nodes: &TwoNodes) -> Result<Self> {
        // Without a protocol it receives nothing.
        let socket = nodes.outside().namespace().run(|| sockets::packets("uplink", 0))?;
        Ok(Self {
            socket: socket.context("cannot open a packet socket")?,
            outside: nodes.outside().namespace().hardware_address("uplink")?,
            node: nodes.node().namespace().hardware_address("uplink")?,
            frame: Vec::new(),
        })
    }

    /// Sends a SYN.
    pub fn syn(&mut self, source: SocketAddr, destination: SocketAddr, sequence: u32) -> Result<()> {
        let packet = self.packet(source.ip(), destination.ip())?;
        let packet = packet.tcp(source.port(), destination.port(), sequence, 64_240).syn();
        self.frame.clear();
        packet.write(&mut self.frame, &[])?;
        self.send()
    }

    /// Sends a datagram.
    pub fn datagram(&mut self, source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Result<()> {
        let packet = self.packet(source.ip(), destination.ip())?.udp(source.port(), destination.port());
        self.frame.clear();
        packet.write(&mut self.frame, payload)?;
        self.send()
    }

    /// Sends a datagram with a VLAN tag; VLAN 0 is none, and makes it a priority tag.
    pub fn tagged_datagram(
        &mut self,
        tag: u16,
        source: SocketAddr,
        destination: SocketAddr,
        payload: &[u8],
    ) -> Result<()> {
        let packet = self.packet(source.ip(), destination.ip())?.udp(source.port(), destination.port());
        self.frame.clear();
        packet.write(&mut self.frame, payload)?;
        // After the hardware addresses: the EtherType of tags (0x8100), and the tag.
        let [high, low] = tag.to_be_bytes();
        self.frame.splice(12..12, [0x81, 0x00, high, low]);
        self.send()
    }

    /// Sends a packet, which begins with its network header.
    pub fn packet_as_it_is(&mut self, packet: &[u8]) -> Result<()> {
        let protocol: [u8; 2] =
            if packet.first().is_some_and(|first| first >> 4 == 6) { [0x86, 0xdd] } else { [8, 0] };
        self.frame.clear();
        for part in [&self.node[..], &self.outside, &protocol, packet] {
            self.frame.extend_from_slice(part);
        }
        self.send()
    }

    fn packet(&self, source: IpAddr, destination: IpAddr) -> Result<PacketBuilderStep<IpHeaders>> {
        let frame = PacketBuilder::ethernet2(self.outside, self.node);
        Ok(match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                frame.ipv4(source.octets(), destination.octets(), 64)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                frame.ipv6(source.octets(), destination.octets(), 64)
            }
            _ => bail!("{source} and {destination} have different families"),
        })
    }

    fn send(&self) -> Result<()> {
        loop {
            match self.socket.send(&self.frame) {
                // The peer device's queue is full.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => std::thread::yield_now(),
                sent => return Ok(sent.map(drop)?),
            }
        }
    }
}
