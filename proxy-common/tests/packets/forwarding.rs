//! Packets that are forwarded past the stack.

use bytemuck::pod_read_unaligned;
use proptest::prelude::*;
use proxy_common::packet::{
    checksum::{finish, sum},
    forward::{Head, HeadV4, HeadV6, send_on},
    network, transport,
};
use sidestep_tests::packets::{Datagram, hexadecimal};

use crate::{
    shapes::{datagram, new, socket},
    skb::{LINK, Skb},
};

const TO: [u16; 3] = [1, 2, 3];
const FROM: [u16; 3] = [4, 5, 6];

/// Forwards the frame with another source and destination, as the kernel programs do.
fn forwarded<H: Head>(skb: &mut Skb, ends: &Datagram) {
    let network = network::parse(skb, LINK, ends.source.is_ipv6()).expect("a network header");
    let transport = transport::parse(skb, network.transport, network.protocol).expect("a transport header");
    let mut head: H = pod_read_unaligned(&skb.bytes[..size_of::<H>()]);
    let (source, destination) = (new(ends.source), new(ends.destination));
    send_on(skb, &mut head, (&network, &transport), source, destination, [TO, FROM]).expect("forwarded");
}

/// The packet with its TTL decremented.
fn a_hop_later(datagram: &Datagram) -> Vec<u8> {
    let mut packet = datagram.packet();
    if datagram.source.is_ipv6() {
        packet[7] -= 1;
    } else {
        packet[8] -= 1;
        packet[10..12].fill(0);
        let checksum = finish(sum(&packet[..20]));
        packet[10..12].copy_from_slice(&checksum.to_ne_bytes());
    }
    packet
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, max_global_rejects: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// A forwarded packet equals one made with the other source and destination and a lower TTL, in a frame to the
    /// neighbour. A sum that a device computed (CHECKSUM_COMPLETE) stays the sum of its bytes.
    #[test]
    fn a_packet_sent_on_is_the_one_with_other_ends_a_hop_later(
        (ends, packet) in datagram().prop_flat_map(|(datagram, _)| {
            let v6 = datagram.source.is_ipv6();
            (Just(datagram), socket(v6), socket(v6))
        }).prop_map(|(packet, source, destination)| (packet.from(source).to(destination), packet))
    ) {
        let plain = if packet.source.is_ipv6() { 40 } else { 20 };
        prop_assume!(packet.network_length() == plain);
        let expected = a_hop_later(&ends);
        for mut skb in [Skb::new(&packet.packet()), Skb::complete(&packet.packet())] {
            if packet.source.is_ipv6() {
                forwarded::<HeadV6>(&mut skb, &ends);
            } else {
                forwarded::<HeadV4>(&mut skb, &ends);
            }
            let (frame, bytes) = skb.bytes.split_at(LINK as usize);
            prop_assert_eq!(&frame[..12], bytemuck::bytes_of(&[TO, FROM]));
            prop_assert_eq!(&frame[12..], [0xee; 2]);
            prop_assert!(bytes == expected, "{}\nexpected{}", hexadecimal(bytes), hexadecimal(&expected));
        }
    }
}
