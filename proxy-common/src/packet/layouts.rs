//! Asserts that our header layouts equal those of the `network-types` crate, whose numbers we use.
//!
//! We do not use its structures: their fields are arrays of bytes, for which the compiler emits a load and a shift
//! each, where our code loads, compares and stores several fields at once as words.

use core::mem::offset_of;

use network_types::{
    eth::{EthHdr, EtherType},
    ip::{IpProto, Ipv4Hdr, Ipv6Hdr},
    tcp::TcpHdr,
    udp::UdpHdr,
};

use super::{
    forward::Ethernet,
    network::{V4, V6},
    transport::{Tcp, Udp},
};
use crate::address::Protocol;

/// `EtherType` of IPv4, as in the packet.
pub const ETHER_IPV4: u16 = EtherType::Ipv4 as u16;
/// `EtherType` of IPv6, as in the packet.
pub const ETHER_IPV6: u16 = EtherType::Ipv6 as u16;

const _: () = assert!(size_of::<Ethernet>() == size_of::<EthHdr>());
const _: () = assert!(offset_of!(Ethernet, to) == offset_of!(EthHdr, dst_addr));
const _: () = assert!(offset_of!(Ethernet, from) == offset_of!(EthHdr, src_addr));
const _: () = assert!(offset_of!(Ethernet, kind) == offset_of!(EthHdr, ether_type));

const _: () = assert!(size_of::<V4>() == size_of::<Ipv4Hdr>());
const _: () = assert!(offset_of!(V4, version_and_length) == offset_of!(Ipv4Hdr, vihl));
const _: () = assert!(offset_of!(V4, service) == offset_of!(Ipv4Hdr, tos));
const _: () = assert!(offset_of!(V4, length) == offset_of!(Ipv4Hdr, tot_len));
const _: () = assert!(offset_of!(V4, identification) == offset_of!(Ipv4Hdr, id));
const _: () = assert!(offset_of!(V4, fragment) == offset_of!(Ipv4Hdr, frags));
const _: () = assert!(offset_of!(V4, time_to_live) == offset_of!(Ipv4Hdr, ttl));
const _: () = assert!(offset_of!(V4, protocol) == offset_of!(Ipv4Hdr, proto));
const _: () = assert!(offset_of!(V4, checksum) == offset_of!(Ipv4Hdr, check));
const _: () = assert!(offset_of!(V4, source) == offset_of!(Ipv4Hdr, src_addr));
const _: () = assert!(offset_of!(V4, destination) == offset_of!(Ipv4Hdr, dst_addr));

const _: () = assert!(size_of::<V6>() == size_of::<Ipv6Hdr>());
const _: () = assert!(offset_of!(V6, version_class_and_label) == offset_of!(Ipv6Hdr, vcf));
const _: () = assert!(offset_of!(V6, length) == offset_of!(Ipv6Hdr, payload_len));
const _: () = assert!(offset_of!(V6, next) == offset_of!(Ipv6Hdr, next_hdr));
const _: () = assert!(offset_of!(V6, hop_limit) == offset_of!(Ipv6Hdr, hop_limit));
const _: () = assert!(offset_of!(V6, source) == offset_of!(Ipv6Hdr, src_addr));
const _: () = assert!(offset_of!(V6, destination) == offset_of!(Ipv6Hdr, dst_addr));

// Of a TCP header only the fields before the window are read, of a UDP header only the ports.
const _: () = assert!(size_of::<Tcp>() == offset_of!(TcpHdr, window));
const _: () = assert!(offset_of!(Tcp, ports) == offset_of!(TcpHdr, source));
const _: () = assert!(offset_of!(Tcp, sequence) == offset_of!(TcpHdr, seq));
const _: () = assert!(offset_of!(Tcp, acknowledgement) == offset_of!(TcpHdr, ack_seq));
const _: () = assert!(offset_of!(Udp, ports) == offset_of!(UdpHdr, src) && offset_of!(UdpHdr, dst) == 2);
const _: () = assert!(super::transport::TCP_CHECKSUM as usize == offset_of!(TcpHdr, check));
const _: () = assert!(super::transport::UDP_CHECKSUM as usize == offset_of!(UdpHdr, check));

const _: () = assert!(Protocol::Tcp as u8 == IpProto::Tcp as u8 && Protocol::Udp as u8 == IpProto::Udp as u8);
const _: () = assert!(Protocol::Sctp as u8 == IpProto::Sctp as u8);
