//! Answers to refused packets: a TCP reset (RFC 9293, 3.5.2) or ICMP "port unreachable" (RFC 792, RFC 4443), from
//! the address that the client used. Stateless, and no longer than necessary.
//!
//! The packet's checksum may still be to be computed (CHECKSUM_PARTIAL, from a neighbour on the same machine). A
//! program cannot change that, so the answer's checksum, at the same offset, is left to be computed, too. Such a
//! packet is recognised by its checksum field, which holds the sum of the pseudo-header.

use bytemuck::{Pod, Zeroable, must_cast_ref};

use super::{
    Network, Read,
    checksum::{add, finish, pseudo_header},
    error::{ICMP, ICMPV6},
    network::{Fragment, V4, V6},
};
use crate::address::{Address, Protocol};

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Tcp {
    source: u16,
    destination: u16,
    sequence: [u16; 2],
    acknowledgement: [u16; 2],
    offset: u8,
    control: u8,
    window: u16,
    checksum: u16,
    urgent: u16,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Udp {
    source: u16,
    destination: u16,
    length: u16,
    checksum: u16,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Icmp {
    kind: u8,
    code: u8,
    checksum: u16,
    unused: [u16; 2],
}

/// A TCP reset in IPv4, from the network header on.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct ResetV4 {
    network: V4,
    transport: Tcp,
}

/// A TCP reset in IPv6.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct ResetV6 {
    network: V6,
    transport: Tcp,
}

/// "Port unreachable" in IPv4.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct UnreachableV4 {
    network: V4,
    icmp: Icmp,
    quoted: V4,
    transport: Udp,
}

/// "Port unreachable" in IPv6.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct UnreachableV6 {
    network: V6,
    icmp: Icmp,
    quoted: V6,
    transport: Udp,
}

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;
const TIME_TO_LIVE: u8 = 64;

/// Whether a packet can be answered: unfragmented, and without IP options or extension headers.
#[inline(always)]
const fn is_plain(network: &Network) -> bool {
    matches!(network.fragment, Fragment::Whole) && network.is_plain()
}

/// The reset that answers a TCP segment in IPv4; `None` for a reset, or a packet that cannot be answered.
#[inline(always)]
pub fn reset_v4(packet: &impl Read, network: &Network) -> Option<ResetV4> {
    if !is_plain(network) {
        return None;
    }
    let asked: V4 = packet.load(network.offset)?;
    let length = u32::from(u16::from_be(asked.length)).wrapping_sub(20);
    let transport = reset(packet, network, length)?;
    Some(ResetV4 { network: header_v4(network, Protocol::Tcp as u8, size_of::<ResetV4>()), transport })
}

/// The reset that answers a TCP segment in IPv6; `None` for a reset, or a packet that cannot be answered.
#[inline(always)]
pub fn reset_v6(packet: &impl Read, network: &Network) -> Option<ResetV6> {
    if !is_plain(network) {
        return None;
    }
    let asked: V6 = packet.load(network.offset)?;
    let transport = reset(packet, network, u32::from(u16::from_be(asked.length)))?;
    Some(ResetV6 { network: header_v6(network, Protocol::Tcp as u8, size_of::<Tcp>()), transport })
}

/// `length` is the length of the segment, header and data.
#[inline(always)]
fn reset(packet: &impl Read, network: &Network, length: u32) -> Option<Tcp> {
    let asked: Tcp = packet.load(network.transport)?;
    if asked.control & RST != 0 {
        return None;
    }
    let protocol = Protocol::Tcp as u8;
    let mut answer = Tcp {
        source: asked.destination,
        destination: asked.source,
        offset: 5 << 4,
        control: RST,
        ..Tcp::zeroed()
    };
    if asked.control & ACK != 0 {
        answer.sequence = asked.acknowledgement;
    } else {
        let data = length.wrapping_sub(u32::from(asked.offset >> 4) * 4);
        let marks = u32::from(asked.control & SYN != 0) + u32::from(asked.control & FIN != 0);
        let sequence = u32::from_be(bytemuck::must_cast(asked.sequence));
        let next = sequence.wrapping_add(data).wrapping_add(marks);
        answer.acknowledgement = bytemuck::must_cast(next.to_be());
        answer.control = RST | ACK;
    }
    let pseudo = pseudo_header(&network.source, &network.destination, protocol, size_of::<Tcp>() as u32);
    answer.checksum = if is_partial(network, protocol, length, asked.checksum) {
        !finish(pseudo)
    } else {
        finish(add(pseudo, sum(must_cast_ref::<Tcp, [u16; 10]>(&answer))))
    };
    Some(answer)
}

/// "Port unreachable" for a UDP datagram in IPv4; `None` for a packet that cannot be answered.
#[inline(always)]
pub fn unreachable_v4(packet: &impl Read, network: &Network) -> Option<UnreachableV4> {
    if !is_plain(network) {
        return None;
    }
    let quoted: V4 = packet.load(network.offset)?;
    let transport: Udp = packet.load(network.transport)?;
    let icmp = Icmp { kind: 3, code: 3, ..Icmp::zeroed() };
    let network = header_v4(network, ICMP, size_of::<UnreachableV4>());
    let mut answer = UnreachableV4 { network, icmp, quoted, transport };
    // With CHECKSUM_PARTIAL, the kernel writes its checksum to the unused field: 0, as the ICMP checksum is right.
    let words: &[u16; 28] = must_cast_ref(&answer);
    answer.icmp.checksum = finish(sum_from::<28, 10>(words));
    Some(answer)
}

/// "Port unreachable" for a UDP datagram in IPv6, built in `answer`: it is too large for the stack of a kernel
/// program. `false` for a packet that cannot be answered.
#[inline(always)]
pub fn unreachable_v6(packet: &impl Read, network: &Network, answer: &mut UnreachableV6) -> bool {
    if !is_plain(network) {
        return false;
    }
    let (Some(quoted), Some(transport)) = (packet.load(network.offset), packet.load(network.transport))
    else {
        return false;
    };
    (answer.quoted, answer.transport) = (quoted, transport);
    let length = size_of::<UnreachableV6>() - size_of::<V6>();
    let pseudo = pseudo_header(&network.source, &network.destination, ICMPV6, length as u32);
    let Udp { length: udp_length, checksum, .. } = answer.transport;
    answer.icmp = Icmp { kind: 1, code: 4, ..Icmp::zeroed() };
    let udp_length = u32::from(u16::from_be(udp_length));
    if is_partial(network, Protocol::Udp as u8, udp_length, checksum) {
        // The checksum that the kernel computes for this field then makes that of the whole message right.
        answer.icmp.unused = [0, !finish(pseudo)];
    }
    answer.network = header_v6(network, ICMPV6, length);
    let words: &[u16; 48] = must_cast_ref(&*answer);
    answer.icmp.checksum = finish(add(pseudo, sum_from::<48, 20>(words)));
    true
}

/// Whether the checksum of a packet is still to be computed (CHECKSUM_PARTIAL).
#[inline(always)]
fn is_partial(network: &Network, protocol: u8, length: u32, checksum: u16) -> bool {
    checksum == !finish(pseudo_header(&network.source, &network.destination, protocol, length))
}

/// The IPv4 header of an answer, from the destination of the packet `asked` to its source.
#[inline(always)]
fn header_v4(asked: &Network, protocol: u8, length: usize) -> V4 {
    const DO_NOT_FRAGMENT: u16 = 0x4000;
    let mut header = V4 {
        version_and_length: 0x45,
        service: 0,
        length: (length as u16).to_be(),
        identification: 0,
        fragment: DO_NOT_FRAGMENT.to_be(),
        time_to_live: TIME_TO_LIVE,
        protocol,
        checksum: 0,
        source: v4(&asked.destination),
        destination: v4(&asked.source),
    };
    header.checksum = finish(sum(must_cast_ref::<V4, [u16; 10]>(&header)));
    header
}

#[inline(always)]
fn header_v6(asked: &Network, next: u8, length: usize) -> V6 {
    V6 {
        version_class_and_label: [0x6000_u16.to_be(), 0],
        length: (length as u16).to_be(),
        next,
        hop_limit: TIME_TO_LIVE,
        source: bytemuck::must_cast(asked.destination.bytes),
        destination: bytemuck::must_cast(asked.source.bytes),
    }
}

#[inline(always)]
const fn v4(address: &Address) -> [u16; 2] {
    let [.., v4] = address.words();
    bytemuck::must_cast(v4)
}

#[inline(always)]
fn sum<const N: usize>(words: &[u16; N]) -> u32 {
    sum_from::<N, 0>(words)
}

/// The sum of all words except the first `FROM`.
#[inline(always)]
fn sum_from<const N: usize, const FROM: usize>(words: &[u16; N]) -> u32 {
    words.iter().skip(FROM).fold(0, |sum, word| sum + u32::from(*word))
}

const _: () = assert!(size_of::<ResetV4>() == 40 && size_of::<ResetV6>() == 60);
const _: () = assert!(size_of::<UnreachableV4>() == 56 && size_of::<UnreachableV6>() == 96);
