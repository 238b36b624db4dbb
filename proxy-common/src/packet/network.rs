//! IPv4 (RFC 791) and IPv6 (RFC 8200) headers, up to where the transport header begins.

use bytemuck::{Pod, Zeroable, must_cast};
use network_types::ip::IpProto;

use super::Read;
use crate::address::Address;

/// Which part of a datagram a packet carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Fragment {
    /// The whole datagram.
    Whole = 0,
    /// The first fragment, with the transport header.
    First = 1,
    /// A later fragment, without the transport header.
    Later = 2,
}

/// A parsed network header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Network {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Offset of the header.
    pub offset: u32,
    /// Offset of the transport header.
    pub transport: u32,
    /// Identification, which the fragments of a datagram share; as in the packet.
    pub identification: u32,
    /// The checksum of an IPv4 header, as in the packet.
    pub checksum: u16,
    /// IANA protocol number of the transport.
    pub protocol: u8,
    /// Which part of a datagram this is.
    pub fragment: Fragment,
    /// Whether the packet is IPv6.
    pub v6: bool,
}

/// An IPv4 header without options.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct V4 {
    pub(super) version_and_length: u8,
    pub(super) service: u8,
    pub(super) length: u16,
    pub(super) identification: u16,
    pub(super) fragment: u16,
    pub(super) time_to_live: u8,
    pub(super) protocol: u8,
    pub(super) checksum: u16,
    pub(super) source: [u16; 2],
    pub(super) destination: [u16; 2],
}

/// An IPv6 header.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct V6 {
    pub(super) version_class_and_label: [u16; 2],
    pub(super) length: u16,
    pub(super) next: u8,
    pub(super) hop_limit: u8,
    pub(super) source: [u16; 8],
    pub(super) destination: [u16; 8],
}

/// The fragment header, and the beginning of every other extension header.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Extension {
    next: u8,
    length: u8,
    fragment: u16,
    identification: u32,
}

const MORE_FRAGMENTS: u16 = 0x2000;
const FRAGMENT_OFFSET: u16 = 0x1fff;
const HOP_BY_HOP: u8 = IpProto::HopOpt as u8;
const ROUTING: u8 = IpProto::Ipv6Route as u8;
const FRAGMENT: u8 = IpProto::Ipv6Frag as u8;
const AUTHENTICATION: u8 = IpProto::Ah as u8;
const DESTINATION_OPTIONS: u8 = IpProto::Ipv6Opts as u8;
/// Maximum number of headers: the six that RFC 8200 (4.1) puts in order, then the transport header.
const HEADERS: u32 = 7;

/// Parses the header at `offset`.
#[inline(always)]
pub fn parse(packet: &impl Read, offset: u32, v6: bool) -> Option<Network> {
    if v6 { parse_v6(packet, offset) } else { parse_v4(packet, offset) }
}

/// Parses the IPv4 header at `offset`.
#[inline(always)]
pub fn parse_v4(packet: &impl Read, offset: u32) -> Option<Network> {
    let header: V4 = packet.load(offset)?;
    let length = u32::from(header.version_and_length & 0xf) * 4;
    if header.version_and_length >> 4 != 4 || length < 20 {
        return None;
    }
    let fragment = u16::from_be(header.fragment);
    Some(Network {
        source: address_v4(header.source),
        destination: address_v4(header.destination),
        offset,
        transport: offset + length,
        identification: u32::from(header.identification),
        checksum: header.checksum,
        protocol: header.protocol,
        fragment: part(fragment & FRAGMENT_OFFSET != 0, fragment & MORE_FRAGMENTS != 0),
        v6: false,
    })
}

/// Parses the IPv6 header at `offset`, and the extension headers after it.
#[inline(always)]
pub fn parse_v6(packet: &impl Read, offset: u32) -> Option<Network> {
    let header: V6 = packet.load(offset)?;
    let source = Address::from_words(must_cast(header.source));
    let destination = Address::from_words(must_cast(header.destination));
    // IPv4-mapped addresses do not belong on the wire; in the tables they stand for IPv4 addresses.
    if !header.is_v6() || source.is_v4() || destination.is_v4() {
        return None;
    }
    let mut network = Network {
        source,
        destination,
        offset,
        transport: offset + size_of::<V6>() as u32,
        identification: 0,
        checksum: 0,
        protocol: header.next,
        fragment: Fragment::Whole,
        v6: true,
    };
    let mut headers = 0;
    while headers < HEADERS {
        let kind = network.protocol;
        if !matches!(kind, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS) {
            return Some(network);
        }
        let extension: Extension = packet.load(network.transport)?;
        network.protocol = extension.next;
        network.transport += match kind {
            FRAGMENT => 8,
            AUTHENTICATION => (u32::from(extension.length) + 2) * 4,
            _ => (u32::from(extension.length) + 1) * 8,
        };
        if kind == FRAGMENT {
            let fragment = u16::from_be(extension.fragment);
            network.fragment = part(fragment & 0xfff8 != 0, fragment & 1 != 0);
            network.identification = extension.identification;
            if matches!(network.fragment, Fragment::Later) {
                return Some(network);
            }
        }
        headers += 1;
    }
    None
}

#[inline(always)]
const fn part(later: bool, more: bool) -> Fragment {
    if later {
        Fragment::Later
    } else if more {
        Fragment::First
    } else {
        Fragment::Whole
    }
}

#[inline(always)]
const fn address_v4(halves: [u16; 2]) -> Address {
    Address::from_words([0, 0, 0xffff_u32.to_be(), must_cast(halves)])
}

impl V4 {
    /// Parses this header, read at `offset`, if the packet is unfragmented and without options, as most are.
    #[inline(always)]
    pub const fn plain(&self, offset: u32) -> Option<Network> {
        const DO_NOT_FRAGMENT: u16 = 0x4000;
        if self.version_and_length != 0x45 || self.fragment & !DO_NOT_FRAGMENT.to_be() != 0 {
            return None;
        }
        Some(Network {
            source: address_v4(self.source),
            destination: address_v4(self.destination),
            offset,
            transport: offset + size_of::<Self>() as u32,
            identification: 0,
            checksum: self.checksum,
            protocol: self.protocol,
            fragment: Fragment::Whole,
            v6: false,
        })
    }
}

impl V6 {
    #[inline(always)]
    const fn is_v6(&self) -> bool {
        u16::from_be(self.version_class_and_label[0]) >> 12 == 6
    }

    /// Parses this header, read at `offset`. Takes the next header for the transport header.
    #[inline(always)]
    pub const fn plain(&self, offset: u32) -> Option<Network> {
        let source = Address::from_words(must_cast(self.source));
        let destination = Address::from_words(must_cast(self.destination));
        if !self.is_v6() || source.is_v4() || destination.is_v4() {
            return None;
        }
        Some(Network {
            source,
            destination,
            offset,
            transport: offset + size_of::<Self>() as u32,
            identification: 0,
            checksum: 0,
            protocol: self.next,
            fragment: Fragment::Whole,
            v6: true,
        })
    }
}

impl Network {
    /// Whether the transport header follows the fixed network header, without options or extension headers.
    #[inline(always)]
    pub const fn is_plain(&self) -> bool {
        self.transport - self.offset == if self.v6 { 40 } else { 20 }
    }

    /// Offset of the source address.
    #[inline(always)]
    pub const fn source_offset(&self) -> u32 {
        self.offset + if self.v6 { 8 } else { 12 }
    }

    /// Offset of the destination address.
    #[inline(always)]
    pub const fn destination_offset(&self) -> u32 {
        self.offset + if self.v6 { 24 } else { 16 }
    }

    /// Offset of the checksum of an IPv4 header.
    #[inline(always)]
    pub const fn checksum_offset(&self) -> u32 {
        self.offset + 10
    }
}

const _: () = assert!(size_of::<V4>() == 20 && size_of::<V6>() == 40 && size_of::<Extension>() == 8);
