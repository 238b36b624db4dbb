//! The beginning of a transport header: ports, and the connection state that a TCP segment shows (RFC 9293).

use bytemuck::{Pod, Zeroable};

use super::Read;
use crate::address::{Port, Protocol};

/// A parsed transport header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transport {
    /// Source port.
    pub source: Port,
    /// Destination port.
    pub destination: Port,
    /// What the packet means to the state of its connection.
    pub segment: Segment,
    /// TCP's sequence and acknowledgement numbers; 0 for other protocols.
    pub numbers: Numbers,
}

/// TCP's sequence and acknowledgement numbers (RFC 9293, 3.1).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Numbers {
    /// Sequence number of the segment's first byte.
    pub sequence: u32,
    /// Sequence number expected next from the other side.
    pub acknowledgement: u32,
}

/// What a packet means to the state of its connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct Segment {
    /// TCP's control bits; [`Segment::DATAGRAM`] for other protocols.
    pub bits: u8,
}

impl Segment {
    const FIN: u8 = 1;
    const SYN: u8 = 2;
    const RST: u8 = 4;
    const ACK: u8 = 16;
    const CONTROL: u8 = Self::FIN | Self::SYN | Self::RST | Self::ACK;
    /// A packet of a protocol without connections (or whose connections are not tracked). The bit is URG in TCP,
    /// which nothing here reads.
    pub const DATAGRAM: Self = Self { bits: 32 };

    /// A later fragment of a datagram: changes no state, and begins no connection.
    pub const LATER: Self = Self { bits: 0 };

    /// A TCP segment with these control bits.
    #[inline(always)]
    pub const fn tcp(bits: u8) -> Self {
        Self { bits: bits & Self::CONTROL }
    }

    /// Whether the protocol has no connections.
    #[inline(always)]
    pub const fn is_datagram(self) -> bool {
        self.bits & Self::DATAGRAM.bits != 0
    }

    /// Whether it may begin a connection: a SYN and nothing else, or any datagram. (PO-23: any other segment
    /// without a record belongs to a connection that the stack knows.)
    #[inline(always)]
    pub const fn begins(self) -> bool {
        self.is_datagram() || self.bits & Self::CONTROL == Self::SYN
    }

    /// Whether it is a SYN-ACK.
    #[inline(always)]
    pub const fn is_answer(self) -> bool {
        self.bits & (Self::SYN | Self::ACK) == Self::SYN | Self::ACK
    }

    /// Whether, from a client after an answer, it shows that the client got the answer: then its address is not
    /// forged.
    #[inline(always)]
    pub const fn confirms(self) -> bool {
        self.is_datagram() || self.bits & Self::CONTROL == Self::ACK
    }

    /// Whether it ends its direction of the connection.
    #[inline(always)]
    pub const fn is_fin(self) -> bool {
        self.bits & Self::FIN != 0
    }

    /// Whether it resets the connection.
    #[inline(always)]
    pub const fn is_rst(self) -> bool {
        self.bits & Self::RST != 0
    }
}

/// The first 14 bytes of a TCP header.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Tcp {
    pub(super) ports: [u16; 2],
    pub(super) sequence: [u16; 2],
    pub(super) acknowledgement: [u16; 2],
    offset: u8,
    control: u8,
}

/// Parses the header at `offset`; `None` for other protocols. SCTP is not translated: another port would need a
/// new checksum over the whole packet.
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
    /// The parsed header.
    #[inline(always)]
    pub const fn transport(&self) -> Transport {
        let numbers = Numbers {
            sequence: u32::from_be(bytemuck::must_cast(self.sequence)),
            acknowledgement: u32::from_be(bytemuck::must_cast(self.acknowledgement)),
        };
        Transport { numbers, ..transport(self.ports, Segment::tcp(self.control)) }
    }

    /// Length of the header, options included.
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
    /// The parsed header.
    #[inline(always)]
    pub const fn transport(&self) -> Transport {
        transport(self.ports, Segment::DATAGRAM)
    }
}

/// Parses the ports of a packet that an error quotes. More is not needed, and not always quoted.
#[inline(always)]
pub fn parse_quoted(packet: &impl Read, offset: u32, protocol: u8) -> Option<Transport> {
    if protocol != Protocol::Tcp as u8 && protocol != Protocol::Udp as u8 {
        return None;
    }
    Some(packet.load::<Udp>(offset)?.transport())
}

/// Offset of the checksum in a TCP header.
pub(super) const TCP_CHECKSUM: u32 = 16;
/// Offset of the checksum in a UDP header.
pub(super) const UDP_CHECKSUM: u32 = 6;

/// Offset of the checksum in a transport header; `None` for protocols without an Internet checksum.
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
