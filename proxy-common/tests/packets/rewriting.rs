//! Rewriting one address and port.

use std::net::SocketAddr;

use proptest::prelude::*;
use proxy_common::packet::{Fragment, Side, Transport, network, rewrite, transport};
use sidestep_tests::packets::{Datagram, hexadecimal};

use crate::{
    shapes::{cuts, datagram, new},
    skb::{LINK, Skb, Summed, add},
};

const SIDES: [Side; 2] = [Side::Source, Side::Destination];

/// The datagram with the other address on this side.
fn replaced(datagram: &Datagram, side: Side, address: SocketAddr) -> Datagram {
    match side {
        Side::Source => datagram.from(address),
        Side::Destination => datagram.to(address),
    }
}

/// Parses the headers, and rewrites the address. `first` is the transport header of the first fragment, for a
/// later one.
fn translate(
    skb: &mut Skb,
    v6: bool,
    side: Side,
    address: SocketAddr,
    first: Option<Transport>,
) -> Transport {
    let network = network::parse(skb, LINK, v6).expect("a network header");
    let transport = match first {
        Some(first) if network.fragment == Fragment::Later => first,
        _ => transport::parse(skb, network.transport, network.protocol).expect("a transport header"),
    };
    rewrite(skb, &network, &transport, side, new(address)).expect("a packet that can be changed");
    transport
}

/// Whether the datagram has a checksum. Nothing verifies the `CHECKSUM_COMPLETE` sum of a datagram without one.
fn has_checksum(datagram: &Datagram) -> bool {
    let offset = if datagram.protocol() == 6 { 16 } else { 6 };
    datagram.segment()[offset..offset + 2] != [0, 0]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// The parsed headers have the values that were written.
    #[test]
    fn headers_are_read_as_they_were_written((datagram, _) in datagram()) {
        let packet = datagram.packet();
        let skb = Skb::new(&packet);
        let network = network::parse(&skb, LINK, datagram.source.is_ipv6()).expect("a network header");
        prop_assert_eq!((network.source, network.destination), (new(datagram.source).0, new(datagram.destination).0));
        prop_assert_eq!(network.transport as usize - LINK as usize, datagram.network_length());
        prop_assert_eq!((network.protocol, network.fragment), (datagram.protocol(), Fragment::Whole));
        let transport = transport::parse(&skb, network.transport, network.protocol).expect("a transport header");
        prop_assert_eq!(transport.source.get(), datagram.source.port());
        prop_assert_eq!(transport.destination.get(), datagram.destination.port());
    }

    /// A translated packet equals one made with the other address; translated back, it equals the original.
    #[test]
    fn a_translated_packet_is_the_one_with_the_other_address((datagram, address) in datagram()) {
        let v6 = datagram.source.is_ipv6();
        for side in SIDES {
            let mut skb = Skb::new(&datagram.packet());
            translate(&mut skb, v6, side, address, None);
            let expected = replaced(&datagram, side, address).packet();
            prop_assert!(skb.packet() == expected, "{side:?}: {}\nexpected{}", hexadecimal(skb.packet()), hexadecimal(&expected));
            let back = match side {
                Side::Source => datagram.source,
                Side::Destination => datagram.destination,
            };
            translate(&mut skb, v6, side, back, None);
            prop_assert_eq!(skb.packet(), &datagram.packet()[..]);
        }
    }

    /// The sum of the device (CHECKSUM_COMPLETE) stays the sum of the bytes of the packet.
    #[test]
    fn the_sum_of_a_device_that_adds_up_stays_right((datagram, address) in datagram()) {
        for side in SIDES {
            let mut skb = Skb::complete(&datagram.packet());
            translate(&mut skb, datagram.source.is_ipv6(), side, address, None);
            prop_assert!(skb.is_consistent() || !has_checksum(&datagram), "{:?}: {}", side, hexadecimal(skb.packet()));
        }
    }

    /// A checksum that is still to be computed (CHECKSUM_PARTIAL) comes out right.
    #[test]
    fn a_checksum_that_is_yet_to_be_computed_comes_out_right((datagram, address) in datagram()) {
        prop_assume!(has_checksum(&datagram));
        for side in SIDES {
            let offset = datagram.network_length() + if datagram.protocol() == 6 { 16 } else { 6 };
            let mut packet = datagram.packet();
            let rest = add(&[&packet[datagram.network_length()..offset], &packet[offset + 2..]].concat());
            // The right checksum is the complement of the sum of the pseudo-header and everything else: subtract
            // that.
            let checksum = u16::from_ne_bytes([packet[offset], packet[offset + 1]]);
            let pseudo = add(&[(!checksum).to_ne_bytes(), (!rest).to_ne_bytes()].concat());
            packet[offset..offset + 2].copy_from_slice(&pseudo.to_ne_bytes());
            let mut skb = Skb { summed: Summed::Partial, ..Skb::new(&packet) };
            translate(&mut skb, datagram.source.is_ipv6(), side, address, None);
            // As the device does: store the sum from the transport header on.
            let computed = !add(&skb.packet()[datagram.network_length()..]);
            let at = offset + LINK as usize;
            skb.bytes[at..at + 2].copy_from_slice(&computed.to_ne_bytes());
            let expected = replaced(&datagram, side, address).packet();
            let mut canonical = skb.packet().to_vec();
            if canonical[offset..offset + 2] == [0, 0] || canonical[offset..offset + 2] == [0xff, 0xff] {
                canonical[offset..offset + 2].copy_from_slice(&expected[offset..offset + 2]);
            }
            prop_assert_eq!(&canonical, &expected);
        }
    }

    /// Fragments that are translated one by one equal the fragments of the datagram with the other address.
    #[test]
    fn fragments_are_those_of_the_datagram_with_the_other_address(
        (datagram, address) in datagram(),
        cut in any::<prop::sample::Index>(),
        identification in any::<u32>(),
    ) {
        let cuts = cuts(&datagram);
        prop_assume!(!cuts.is_empty());
        let datagram = Datagram { identification: Some(identification), ..datagram };
        let cut = cuts[cut.index(cuts.len())];
        for side in SIDES {
            let expected = replaced(&datagram, side, address).fragments(cut);
            let mut first = None;
            for (number, (fragment, expected)) in datagram.fragments(cut).iter().zip(expected).enumerate() {
                let mut skb = Skb::complete(fragment);
                let transport = translate(&mut skb, datagram.source.is_ipv6(), side, address, first);
                first = Some(transport);
                prop_assert!(
                    skb.packet() == expected,
                    "{:?} of fragment {}: {}\nexpected{}", side, number, hexadecimal(skb.packet()), hexadecimal(&expected)
                );
                prop_assert!(skb.is_consistent() || !has_checksum(&datagram), "{:?} of fragment {}", side, number);
            }
        }
    }
}
