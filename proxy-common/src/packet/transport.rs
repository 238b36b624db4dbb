//! The beginning of a transport header: ports, and the connection state that a TCP segment shows (RFC 9293).

use bytemuck::{Pod, Zeroable};

use super::Read;
use crate::address::{Port, Protocol};

/// What a transport header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transport {
    /// Where the packet comes from.
    pub source: Port,
    /// Where it goes.
    pub destination: Port,
    /// What it is to its flow.
    pub segment: Segment,
    /// TCP's sequence and acknowledgement numbers; 0 of other protocols.
    pub numbers: Numbers,
}

/// TCP's numbers (RFC 9293, 3.1).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Numbers {
    /// Of the segment's first byte.
    pub sequence: u32,
    /// What is expected next from the other side.
    pub acknowledgement: u32,
}

/// What a packet is to its flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct Segment {
    /// TCP's control bits; of other protocols [`Segment::DATAGRAM`].
    pub bits: u8,
}

impl Segment {
    const FIN: u8 = 1;
    const SYN: u8 = 2;
    const RST: u8 = 4;
    const ACK: u8 = 16;
    const CONTROL: u8 = Self::FIN | Self::SYN | Self::RST | Self::ACK;
    /// A packet of a protocol without connections (or one whose connections are not looked at). The bit is one that
    /// TCP has and nobody asks for here (URG).
    pub const DATAGRAM: Self = Self { bits: 32 };

    /// A later fragment of a datagram: says nothing, and begins nothing.
    pub const LATER: Self = Self { bits: 0 };

    /// Of a TCP segment with these control bits.
    #[inline(always)]
    pub const fn tcp(bits: u8) -> Self {
        Self { bits: bits & Self::CONTROL }
    }

    /// Whether it is of a protocol without connections.
    #[inline(always)]
    pub const fn is_datagram(self) -> bool {
        self.bits & Self::DATAGRAM.bits != 0
    }

    /// Whether a connection may begin with it: a SYN and nothing else, or any datagram. (PO-23: every other segment without a
    /// record is of a connection that somebody else knows.)
    #[inline(always)]
    pub const fn begins(self) -> bool {
        self.is_datagram() || self.bits & Self::CONTROL == Self::SYN
    }

    /// Whether it is the second of a TCP handshake.
    #[inline(always)]
    pub const fn is_answer(self) -> bool {
        self.bits & (Self::SYN | Self::ACK) == Self::SYN | Self::ACK
    }

    /// Whether, coming from the client after an answer, it shows that the client got the answer: then the client's
    /// address is not a made-up one.
    #[inline(always)]
    pub const fn confirms(self) -> bool {
        self.is_datagram() || self.bits & Self::CONTROL == Self::ACK
    }

    /// Whether it ends its direction.
    #[inline(always)]
    pub const fn is_fin(self) -> bool {
        self.bits & Self::FIN != 0
    }

    /// Whether it ends the connection.
    #[inline(always)]
    pub const fn is_rst(self) -> bool {
        self.bits & Self::RST != 0
    }
}

/// The first half of a TCP header.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Tcp {
    pub(super) ports: [u16; 2],
    pub(super) sequence: [u16; 2],
    pub(super) acknowledgement: [u16; 2],
    offset: u8,
    control: u8,
}

/// Reads the header at `offset`; nothing for another protocol. SCTP is left alone: the checksum over all of its packet
/// would have to be computed anew for another port.
#[inline(always)]
pub fn parse(packet: &impl Read, offset: u32, protocol: u8) -> Option<Transport> {
    if protocol == Protocol::Tcp as u8 {
        return Some(packet.load::<Tcp>(offset)?.transport());
    }
    if protocol == Protocol::Udp as u8 {
        return Some(packet.load::<Udp>(offset)?.transport());
    }
    None
}

impl Tcp {
    /// What it says.
    #[inline(always)]
    pub const fn transport(&self) -> Transport {
        let numbers = Numbers {
            sequence: u32::from_be(bytemuck::must_cast(self.sequence)),
            acknowledgement: u32::from_be(bytemuck::must_cast(self.acknowledgement)),
        };
        Transport { numbers, ..transport(self.ports, Segment::tcp(self.control)) }
    }

    /// Bytes of the header, with its options.
    #[inline(always)]
    pub const fn length(&self) -> u32 {
        (self.offset as u32 >> 4) * 4
    }
}

/// The beginning of a UDP header.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Udp {
    pub(super) ports: [u16; 2],
}

impl Udp {
    /// What it says.
    #[inline(always)]
    pub const fn transport(&self) -> Transport {
        transport(self.ports, Segment::DATAGRAM)
    }
}

/// Reads the ports of a packet that an error quotes: nothing more of it is needed, nor always there.
#[inline(always)]
pub fn parse_quoted(packet: &impl Read, offset: u32, protocol: u8) -> Option<Transport> {
    if protocol != Protocol::Tcp as u8 && protocol != Protocol::Udp as u8 {
        return None;
    }
    Some(packet.load::<Udp>(offset)?.transport())
}

/// Where a TCP header has its checksum.
pub(super) const TCP_CHECKSUM: u32 = 16;
/// Where a UDP header has its checksum.
pub(super) const UDP_CHECKSUM: u32 = 6;

/// Where a header has its checksum; nothing for a protocol without one of this kind.
#[inline(always)]
pub const fn checksum_offset(protocol: u8) -> Option<u32> {
    const TCP: u8 = Protocol::Tcp as u8;
    const UDP: u8 = Protocol::Udp as u8;
    match protocol {
        TCP => Some(TCP_CHECKSUM),
        UDP => Some(UDP_CHECKSUM),
        _ => None,
    }
}

#[inline(always)]
const fn transport(ports: [u16; 2], segment: Segment) -> Transport {
    let [source, destination] = ports;
    Transport {
        source: Port::from_network(source),
        destination: Port::from_network(destination),
        segment,
        numbers: Numbers { sequence: 0, acknowledgement: 0 },
    }
}

const _: () = assert!(size_of::<Tcp>() == 14);
