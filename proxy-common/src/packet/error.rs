//! ICMP (RFC 792) and ICMPv6 (RFC 4443) errors. An error quotes the beginning of the packet that caused it. The
//! quoted packet is translated back too, so that its sender recognises it.

use bytemuck::{Pod, Zeroable};
use network_types::ip::IpProto;

use super::{
    Change, Edit, Network, Read, Side, Transport, checksum,
    network::{self, Fragment},
    rewrite::store_address,
    transport,
};
use crate::{
    address::{Address, Port, Protocol},
    connection::Tuple,
};

/// IANA protocol number of ICMP.
pub const ICMP: u8 = IpProto::Icmp as u8;
/// IANA protocol number of ICMPv6.
pub const ICMPV6: u8 = IpProto::Ipv6Icmp as u8;

/// Length of the ICMP header, after which the quoted packet begins.
const HEADER: u32 = 8;
/// Offset of the checksum in the ICMP header.
const CHECKSUM: u32 = 2;

/// The packet that an error quotes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quoted {
    /// Its network header.
    pub network: Network,
    /// Its ports.
    pub transport: Transport,
    /// The error is an ICMP redirect: it names another gateway, and nothing has failed.
    pub redirect: bool,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Header {
    kind: u8,
    code: u8,
    checksum: u16,
}

/// Parses the packet that an error quotes. `None` if `outer` is not an error, or does not quote a TCP or UDP
/// packet with its ports.
#[inline(always)]
pub fn parse(packet: &impl Read, outer: &Network) -> Option<Quoted> {
    if outer.protocol != (if outer.v6 { ICMPV6 } else { ICMP }) || !matches!(outer.fragment, Fragment::Whole)
    {
        return None;
    }
    let header: Header = packet.load(outer.transport)?;
    let is_error =
        if outer.v6 { matches!(header.kind, 1..=4) } else { matches!(header.kind, 3 | 4 | 5 | 11 | 12) };
    if !is_error {
        return None;
    }
    let network = network::parse(packet, outer.transport + HEADER, outer.v6)?;
    if matches!(network.fragment, Fragment::Later) {
        return None;
    }
    let transport = transport::parse_quoted(packet, network.transport, network.protocol)?;
    Some(Quoted { network, transport, redirect: !outer.v6 && header.kind == 5 })
}

impl Quoted {
    /// The reversed tuple of the quoted packet: that of the connection's packets in the direction of the error.
    #[inline(always)]
    pub const fn tuple(&self) -> Tuple {
        let Self { network, transport, redirect: _ } = self;
        let (source, destination) =
            ((network.source, transport.source), (network.destination, transport.destination));
        Tuple::new(network.protocol, destination, source)
    }
}

/// Rewrites an error. `side` is the address that the hook rewrites in ordinary packets. In the quoted packet,
/// which travelled in the other direction, the opposite address and its port are rewritten. `None`: the packet
/// must be dropped.
#[inline(always)]
pub fn rewrite<P: Read + Edit>(
    packet: &mut P,
    outer: &Network,
    quoted: &Quoted,
    side: Side,
    new: (Address, Port),
) -> Option<()> {
    let Quoted { network: inner, transport, redirect: _ } = quoted;
    let (outer_old, outer_offset, inner_old, inner_offset, port_offset) = match side {
        Side::Destination => (
            outer.destination,
            outer.destination_offset(),
            (inner.source, transport.source),
            inner.source_offset(),
            inner.transport,
        ),
        Side::Source => (
            outer.source,
            outer.source_offset(),
            (inner.destination, transport.destination),
            inner.destination_offset(),
            inner.transport + 2,
        ),
    };
    // The changes for which the checksum of the error must compensate.
    let address = checksum::of_address(&inner_old.0, &new.0);
    let port = checksum::of_port(inner_old.1, new.1);
    let mut difference = checksum::add(address, port);

    store_address(packet, inner, inner_offset, &new.0)?;
    packet.store(port_offset, &new.1.to_network())?;
    if !inner.v6 {
        let adjusted = checksum::adjust(inner.checksum, address);
        packet.store(inner.checksum_offset(), &adjusted)?;
        difference = checksum::add(difference, checksum::difference(inner.checksum, adjusted));
    }
    difference = checksum::add(difference, adjust_transport(packet, inner, checksum::add(address, port))?);

    let checksum_offset = outer.transport + CHECKSUM;
    let change = Change { pseudo_header: false, v6: outer.v6, optional: false };
    packet.transport_checksum(checksum_offset, difference, change)?;
    let address = checksum::of_address(&outer_old, &new.0);
    if outer.v6 {
        packet.transport_checksum(checksum_offset, address, Change { pseudo_header: true, ..change })?;
    } else {
        packet.store(outer.checksum_offset(), &checksum::adjust(outer.checksum, address))?;
    }
    store_address(packet, outer, outer_offset, &new.0)
}

/// Replaces one port of the quoted packet, and nothing else. `side` is its address's in the quoted packet. `None`: the
/// packet must be dropped.
#[inline(always)]
pub fn renumber<P: Read + Edit>(
    packet: &mut P,
    outer: &Network,
    quoted: &Quoted,
    side: Side,
    new: Port,
) -> Option<()> {
    let Quoted { network: inner, transport, redirect: _ } = quoted;
    let (old, offset) = match side {
        Side::Source => (transport.source, inner.transport),
        Side::Destination => (transport.destination, inner.transport + 2),
    };
    let port = checksum::of_port(old, new);
    packet.store(offset, &new.to_network())?;
    let difference = checksum::add(port, adjust_transport(packet, inner, port)?);
    let change = Change { pseudo_header: false, v6: outer.v6, optional: false };
    packet.transport_checksum(outer.transport + CHECKSUM, difference, change)
}

/// Adjusts the transport checksum of the quoted packet, if the error quotes it and it is used. Returns the difference for
/// which the checksum of the error must compensate.
#[inline(always)]
fn adjust_transport<P: Read + Edit>(packet: &mut P, inner: &Network, by: u32) -> Option<u32> {
    if let Some(offset) = transport::checksum_offset(inner.protocol)
        // An error may quote too little of a TCP header.
        && let Some(old) = packet.load::<u16>(inner.transport + offset)
        && (old != 0 || inner.protocol != Protocol::Udp as u8)
    {
        let adjusted = match checksum::adjust(old, by) {
            0 if inner.protocol == Protocol::Udp as u8 => u16::MAX,
            adjusted => adjusted,
        };
        packet.store(inner.transport + offset, &adjusted)?;
        return Some(checksum::difference(old, adjusted));
    }
    Some(0)
}
