//! Rewriting one address and port of a packet.

use bytemuck::{Pod, Zeroable};

use super::{Change, Edit, Network, Read, Transport, checksum, network::Fragment, transport};
use crate::address::{Address, Port, Protocol};

/// Which address of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The source.
    Source,
    /// The destination.
    Destination,
}

/// A hook for packets.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum PacketHook {
    /// TC ingress: destinations are rewritten.
    Ingress = 0,
    /// TC egress: sources are rewritten.
    Egress = 1,
}

impl PacketHook {
    /// The address that is rewritten at this hook.
    #[inline(always)]
    pub const fn side(self) -> Side {
        match self {
            Self::Ingress => Side::Destination,
            Self::Egress => Side::Source,
        }
    }

    /// The place in SUCCESSORS of the program for packets that go out to a pod.
    pub const TO_POD: u32 = 4;

    /// The place of this hook's program in SUCCESSORS: that for devices with an Ethernet header, or that for devices
    /// without a link header.
    #[inline(always)]
    pub const fn place(self, has_link_header: bool) -> u32 {
        2 * self as u32 + !has_link_header as u32
    }
}

/// An IPv4 header from the checksum on, and the ports.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct EndV4 {
    checksum: u16,
    source: [u16; 2],
    destination: [u16; 2],
    ports: [u16; 2],
}

/// An IPv6 header from the destination on, and the ports.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct EndV6 {
    destination: [u32; 4],
    ports: [u16; 2],
}

/// Replaces the address on `side`, and its port, by `new`. `None`: the packet must be dropped.
///
/// Later fragments have neither ports nor a transport checksum: that of the first fragment covers them.
#[inline(always)]
pub fn rewrite(
    edit: &mut impl Edit,
    network: &Network,
    transport: &Transport,
    side: Side,
    new: (Address, Port),
) -> Option<()> {
    let (mut source, mut destination) =
        ((network.source, transport.source), (network.destination, transport.destination));
    let old = match side {
        Side::Source => core::mem::replace(&mut source, new),
        Side::Destination => core::mem::replace(&mut destination, new),
    };
    let difference = checksum::of_address(&old.0, &new.0);
    let has_ports = !matches!(network.fragment, Fragment::Later);
    let ports = [source.1.to_network(), destination.1.to_network()];
    if !network.v6 {
        let checksum = checksum::adjust(network.checksum, difference);
        let end = EndV4 { checksum, source: v4(&source.0), destination: v4(&destination.0), ports };
        if network.is_plain() && has_ports {
            // One store for all fields: each store is a call of a helper.
            edit.store(network.checksum_offset(), &end)?;
        } else {
            let EndV4 { checksum, source: [a, b], destination: [c, d], ports: _ } = end;
            edit.store(network.checksum_offset(), &[checksum, a, b, c, d])?;
            store_ports(edit, network, has_ports, &ports)?;
        }
    } else if matches!(side, Side::Destination) && network.is_plain() && has_ports {
        let end = EndV6 { destination: destination.0.words(), ports };
        edit.store(network.destination_offset(), &end)?;
    } else {
        let offset = match side {
            Side::Source => network.source_offset(),
            Side::Destination => network.destination_offset(),
        };
        edit.store(offset, &new.0.words())?;
        store_ports(edit, network, has_ports, &ports)?;
    }
    if has_ports && let Some(offset) = transport::checksum_offset(network.protocol) {
        let offset = network.transport + offset;
        let optional = network.protocol == Protocol::Udp as u8;
        let change = Change { pseudo_header: true, v6: network.v6, optional };
        edit.transport_checksum(offset, difference, change)?;
        if old.1.number != new.1.number {
            let difference = checksum::of_port(old.1, new.1);
            edit.transport_checksum(offset, difference, Change { pseudo_header: false, ..change })?;
        }
    } else if network.v6 {
        edit.uncovered(difference);
    }
    Some(())
}

/// Replaces both addresses and ports. `None`: the packet must be dropped.
#[inline(always)]
pub fn rewrite_both<P: Read + Edit>(
    packet: &mut P,
    network: &mut Network,
    transport: &mut Transport,
    source: (Address, Port),
    destination: (Address, Port),
) -> Option<()> {
    rewrite(packet, network, transport, Side::Destination, destination)?;
    (network.destination, transport.destination) = destination;
    if !network.v6 {
        network.checksum = packet.load(network.checksum_offset())?;
    }
    rewrite(packet, network, transport, Side::Source, source)
}

#[inline(always)]
fn store_ports(edit: &mut impl Edit, network: &Network, has_ports: bool, ports: &[u16; 2]) -> Option<()> {
    if has_ports { edit.store(network.transport, ports) } else { Some(()) }
}

#[inline(always)]
pub(super) const fn v4(address: &Address) -> [u16; 2] {
    let [.., v4] = address.words();
    bytemuck::must_cast(v4)
}

/// Stores an address at `offset`: four bytes in IPv4, sixteen in IPv6.
#[inline(always)]
pub(super) fn store_address(
    edit: &mut impl Edit,
    network: &Network,
    offset: u32,
    address: &Address,
) -> Option<()> {
    if network.v6 {
        edit.store(offset, address)
    } else {
        let [.., v4] = address.words();
        edit.store(offset, &v4)
    }
}

const _: () = assert!(size_of::<EndV4>() == 14 && size_of::<EndV6>() == 20);
