//! Random bytes: no packet can make the arithmetic fail, or access bytes beyond its end.

use std::net::{Ipv4Addr, SocketAddr};

use proptest::prelude::*;
use proxy_common::Port;
use proxy_common::packet::{
    Fragment, Numbers, Read as _, Segment, Side, Transport, answer, error, network, rewrite, transport,
};
use sidestep_tests::packets::Control;

use crate::{
    shapes::{datagram, datagram_of, new},
    skb::{LINK, Skb},
};

/// Everything that the programs do with a packet, in any order.
fn everything(packet: &[u8], v6: bool, address: SocketAddr) {
    let untouched = Skb::new(packet);
    let Some(network) = network::parse(&untouched, LINK, v6) else { return };
    assert_eq!(network.v6, v6);
    assert_eq!(network.source.is_v4(), !v6);
    let length = packet.len();
    let _ = answer::reset_v4(&untouched, &network).zip(answer::reset_v6(&untouched, &network));
    let mut answer = bytemuck::Zeroable::zeroed();
    answer::unreachable_v6(&untouched, &network, &mut answer);
    let _ = answer::unreachable_v4(&untouched, &network);
    for side in [Side::Source, Side::Destination] {
        let mut skb = untouched.clone();
        let later = Transport {
            source: Port::new(1),
            destination: Port::new(2),
            segment: Segment::LATER,
            numbers: Numbers::default(),
        };
        let parsed = match network.fragment {
            Fragment::Later => Some(later),
            _ => transport::parse(&skb, network.transport, network.protocol),
        };
        if let Some(transport) = parsed {
            // A packet that cannot be changed completely is dropped.
            let _ = rewrite(&mut skb, &network, &transport, side, new(address));
            assert_eq!(skb.packet().len(), length);
        }
        let mut skb = untouched.clone();
        if let Some(quoted) = error::parse(&skb, &network) {
            let _ = error::rewrite(&mut skb, &network, &quoted, side, new(address));
            assert_eq!(skb.packet().len(), length);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_do_no_harm(packet in prop::collection::vec(any::<u8>(), 0..120), v6 in any::<bool>()) {
        let address = if v6 { "[fd00::1]:1" } else { "192.0.2.1:1" };
        everything(&packet, v6, address.parse().expect("an address"));
    }

    /// Packets with random bytes in some positions, truncated anywhere, and errors that quote such packets.
    #[test]
    fn mutated_packets_do_no_harm(
        (datagram, address) in datagram(),
        faults in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        end in prop::option::of(any::<prop::sample::Index>()),
        kind in 0..14_u8,
    ) {
        let mutate = |mut packet: Vec<u8>| {
            for (place, value) in &faults {
                let place = place.index(packet.len());
                packet[place] = *value;
            }
            if let Some(end) = end {
                packet.truncate(end.index(packet.len()));
            }
            packet
        };
        let v6 = datagram.source.is_ipv6();
        everything(&mutate(datagram.packet()), v6, address);
        let (source, destination) = (datagram.destination.ip(), datagram.source.ip());
        let error = Control { source, destination, kind, code: 0, rest: 0, quoted: mutate(datagram.packet()) };
        everything(&error.packet(), v6, address);
        everything(&mutate(error.packet()), v6, address);
    }

    /// IPv4-mapped addresses do not belong on the wire; in the tables they stand for IPv4 addresses.
    #[test]
    fn an_ipv6_packet_with_an_ipv4_address_is_not_taken(
        datagram in datagram_of(true),
        address in any::<[u8; 4]>(),
        source in any::<bool>(),
    ) {
        let mapped = SocketAddr::from((Ipv4Addr::from(address).to_ipv6_mapped(), 80));
        let datagram = if source { datagram.from(mapped) } else { datagram.to(mapped) };
        let skb = Skb::new(&datagram.packet());
        prop_assert_eq!(network::parse(&skb, LINK, true), None);
        let header: network::V6 = skb.load(LINK).expect("a header");
        prop_assert_eq!(header.plain(LINK), None);
    }
}
