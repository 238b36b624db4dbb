//! Forwarding a packet past the stack: new Ethernet header, lower TTL, and both source and destination rewritten
//! in one step.

use bytemuck::{Pod, Zeroable};

use super::{
    Change, Edit, Network, Read, Transport, checksum,
    network::{V4, V6},
    rewrite::v4,
    transport,
};
use crate::address::{Address, Port, Protocol};

/// An Ethernet header.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Ethernet {
    pub(super) to: [u16; 3],
    pub(super) from: [u16; 3],
    pub(super) kind: u16,
}

/// A frame with an IPv4 packet without options, up to the ports.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct HeadV4 {
    ethernet: Ethernet,
    network: V4,
    ports: [u16; 2],
}

/// A frame with an IPv6 packet without extension headers, up to the ports.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct HeadV6 {
    ethernet: Ethernet,
    network: V6,
    ports: [u16; 2],
}

/// The beginning of a frame, up to the ports.
pub trait Head: Pod {
    /// Length of the network header.
    const NETWORK: u32;
    /// TTL or hop limit.
    fn hops(&self) -> u8;
    /// Length of the packet from the network header on. For a GSO packet it may exceed that of one segment.
    fn length(&self) -> u32;
    /// Type of service, or traffic class and flow label, as `bpf_fib_lookup` takes them: four bytes in memory
    /// order.
    fn class(&self) -> [u8; 4];
    /// Rewrites source, destination and both MAC addresses (`frame`: destination, source), and decrements the TTL.
    /// Returns the difference in bytes that no checksum of the packet covers.
    fn change(&mut self, source: (Address, Port), destination: (Address, Port), frame: [[u16; 3]; 2]) -> u32;
}

impl Head for HeadV4 {
    const NETWORK: u32 = size_of::<V4>() as u32;

    #[inline(always)]
    fn hops(&self) -> u8 {
        self.network.time_to_live
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        u16::from_be(self.network.length).into()
    }

    #[inline(always)]
    fn class(&self) -> [u8; 4] {
        [self.network.service, 0, 0, 0]
    }

    #[inline(always)]
    fn change(&mut self, source: (Address, Port), destination: (Address, Port), frame: [[u16; 3]; 2]) -> u32 {
        [self.ethernet.to, self.ethernet.from] = frame;
        let network = &mut self.network;
        let hops = network.time_to_live - 1;
        let (from, to) = (v4(&source.0), v4(&destination.0));
        let mut difference = checksum::difference(
            u16::from_ne_bytes([network.time_to_live, network.protocol]),
            u16::from_ne_bytes([hops, network.protocol]),
        );
        let mut half = 0;
        while half < 2 {
            difference += checksum::difference(network.source[half], from[half]);
            difference += checksum::difference(network.destination[half], to[half]);
            half += 1;
        }
        network.checksum = checksum::adjust(network.checksum, difference);
        network.time_to_live = hops;
        (network.source, network.destination) = (from, to);
        self.ports = [source.1.to_network(), destination.1.to_network()];
        0
    }
}

impl Head for HeadV6 {
    const NETWORK: u32 = size_of::<V6>() as u32;

    #[inline(always)]
    fn hops(&self) -> u8 {
        self.network.hop_limit
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        u32::from(u16::from_be(self.network.length)) + Self::NETWORK
    }

    #[inline(always)]
    fn class(&self) -> [u8; 4] {
        let [version, rest @ ..] =
            bytemuck::must_cast::<[u16; 2], [u8; 4]>(self.network.version_class_and_label);
        let [a, b, c] = rest;
        [version & 0xf, a, b, c]
    }

    #[inline(always)]
    fn change(&mut self, source: (Address, Port), destination: (Address, Port), frame: [[u16; 3]; 2]) -> u32 {
        [self.ethernet.to, self.ethernet.from] = frame;
        let network = &mut self.network;
        let hops = network.hop_limit - 1;
        let difference = checksum::difference(
            u16::from_ne_bytes([network.next, network.hop_limit]),
            u16::from_ne_bytes([network.next, hops]),
        );
        network.hop_limit = hops;
        network.source = bytemuck::must_cast(source.0.words());
        network.destination = bytemuck::must_cast(destination.0.words());
        self.ports = [source.1.to_network(), destination.1.to_network()];
        difference
    }
}

/// Rewrites a packet for forwarding: source, destination, MAC addresses and TTL. `None`: the packet must be
/// dropped.
///
/// `head` is the beginning of the packet, with a TTL above 1; `network` and `transport` are its parsed headers.
#[inline(always)]
pub fn send_on<H: Head>(
    edit: &mut impl Edit,
    head: &mut H,
    (network, transport): (&Network, &Transport),
    source: (Address, Port),
    destination: (Address, Port),
    frame: [[u16; 3]; 2],
) -> Option<()> {
    let uncovered = head.change(source, destination, frame);
    edit.store(0, head)?;
    if uncovered != 0 {
        edit.uncovered(uncovered);
    }
    let offset = size_of::<Ethernet>() as u32 + H::NETWORK + transport::checksum_offset(network.protocol)?;
    let optional = network.protocol == Protocol::Udp as u8;
    let change = Change { pseudo_header: true, v6: network.v6, optional };
    let addresses = checksum::add(
        checksum::of_address(&network.source, &source.0),
        checksum::of_address(&network.destination, &destination.0),
    );
    edit.transport_checksum(offset, addresses, change)?;
    let ports = checksum::of_port(transport.source, source.1)
        + checksum::of_port(transport.destination, destination.1);
    edit.transport_checksum(offset, ports, Change { pseudo_header: false, ..change })
}

/// Length of a packet from the network header on; `None` above 65,535.
#[inline(always)]
pub fn length(packet: &impl Read, network: &Network) -> Option<u16> {
    let length: u16 = packet.load(network.offset + if network.v6 { 4 } else { 2 })?;
    let length = u16::from_be(length);
    if network.v6 { length.checked_add(size_of::<V6>() as u16) } else { Some(length) }
}

/// Offset of the TTL or hop limit.
#[inline(always)]
const fn hops_offset(network: &Network) -> u32 {
    network.offset + if network.v6 { 7 } else { 8 }
}

/// Whether the TTL or hop limit permits forwarding.
#[inline(always)]
pub fn has_hops(packet: &impl Read, network: &Network) -> bool {
    packet.load::<u8>(hops_offset(network)).is_some_and(|hops| hops > 1)
}

/// Decrements the TTL or hop limit of a packet that [may be forwarded](has_hops). `None`: the packet must be
/// dropped.
#[inline(always)]
pub fn take_hop<P: Read + Edit>(packet: &mut P, network: &Network) -> Option<()> {
    // The aligned sixteen bits with the TTL and the protocol, or with the next header and the hop limit.
    let offset = hops_offset(network) & !1;
    let old: [u8; 2] = packet.load(offset)?;
    let [a, b] = old;
    let new = if network.v6 { [a, b.wrapping_sub(1)] } else { [a.wrapping_sub(1), b] };
    let difference = checksum::difference(u16::from_ne_bytes(old), u16::from_ne_bytes(new));
    packet.store(offset, &new)?;
    if network.v6 {
        packet.uncovered(difference);
        return Some(());
    }
    let checksum = packet.load(network.checksum_offset())?;
    packet.store(network.checksum_offset(), &checksum::adjust(checksum, difference))
}

const _: () = assert!(size_of::<Ethernet>() == 14);
const _: () = assert!(size_of::<HeadV4>() == 38 && size_of::<HeadV6>() == 58);
