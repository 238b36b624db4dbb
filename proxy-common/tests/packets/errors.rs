//! ICMP errors that quote a packet.

use proptest::prelude::*;
use proxy_common::packet::{Side, error, network};
use sidestep_tests::packets::{Control, Datagram, hexadecimal};

use crate::{
    shapes::{address, datagram, new},
    skb::{LINK, Skb},
};

/// Type and code of an error.
fn kind(v6: bool) -> impl Strategy<Value = (u8, u8)> {
    if v6 {
        prop::sample::select(vec![(1, 0), (1, 4), (2, 0), (3, 0), (4, 1)])
    } else {
        prop::sample::select(vec![(3, 0), (3, 3), (3, 4), (4, 0), (5, 1), (11, 0), (12, 0)])
    }
}

/// The quote of a packet in an error, with `bytes` of the transport header. Where that cuts the checksum in two,
/// its first byte is not translated.
fn quote(of: &Datagram, original: &Datagram, bytes: usize) -> Vec<u8> {
    let mut quoted = of.packet();
    let length = of.network_length();
    quoted.truncate(length + bytes);
    let half = length + if of.protocol() == 6 { 16 } else { 6 };
    if quoted.len() == half + 1 {
        quoted[half] = original.packet()[half];
    }
    quoted
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// A translated error quotes the translated packet, and all its checksums are right, even if it quotes only
    /// the beginning of the packet.
    #[test]
    fn a_translated_error_quotes_the_translated_packet(
        (datagram, address) in datagram(),
        bytes in 4..60_usize,
        rest in any::<u32>(),
        router in any::<bool>().prop_flat_map(address),
        kinds in (kind(false), kind(true)),
    ) {
        let v6 = datagram.source.is_ipv6();
        let (kind, code) = if v6 { kinds.1 } else { kinds.0 };
        let error = |quoted: &Datagram| {
            // The sender of the error is a router on the path, or the destination of the quoted packet.
            let source = if router.is_ipv6() == v6 { router } else { quoted.destination.ip() };
            let quoted = quote(quoted, &datagram, bytes);
            Control { source, destination: datagram.source.ip(), kind, code, rest, quoted }
        };
        for side in [Side::Destination, Side::Source] {
            let sent = error(&datagram);
            let expected = match side {
                // The destination of the error is the source of the quoted packet.
                Side::Destination => Control { destination: address.ip(), source: sent.source, ..error(&datagram.from(address)) },
                Side::Source => Control { source: address.ip(), ..error(&datagram.to(address)) },
            };
            for complete in [false, true] {
                let packet = sent.packet();
                let mut skb = if complete { Skb::complete(&packet) } else { Skb::new(&packet) };
                let outer = network::parse(&skb, LINK, v6).expect("a network header");
                let quoted = error::parse(&skb, &outer).expect("an error");
                let tuple = quoted.tuple();
                prop_assert_eq!(tuple.from(), new(datagram.destination));
                prop_assert_eq!(tuple.to(), new(datagram.source));
                prop_assert_eq!(quoted.redirect, kind == 5 && !v6);
                error::rewrite(&mut skb, &outer, &quoted, side, new(address)).expect("an error that can be changed");
                let expected = expected.packet();
                prop_assert!(
                    skb.packet() == expected,
                    "{:?}: {}\nexpected{}", side, hexadecimal(skb.packet()), hexadecimal(&expected)
                );
                prop_assert!(skb.is_consistent(), "{:?}: {:?} {}", side, skb.summed, hexadecimal(skb.packet()));
            }
        }
    }

    /// An ICMP message that is not an error, or quotes less than the ports, is left alone.
    #[test]
    fn what_quotes_no_ports_is_no_error((datagram, _) in datagram(), bytes in 0..4_usize, kind in any::<u8>()) {
        let v6 = datagram.source.is_ipv6();
        let mut quoted = datagram.packet();
        quoted.truncate(datagram.network_length() + bytes);
        let control = Control {
            source: datagram.destination.ip(), destination: datagram.source.ip(), kind, code: 0, rest: 0, quoted,
        };
        let skb = Skb::new(&control.packet());
        let outer = network::parse(&skb, LINK, v6).expect("a network header");
        prop_assert_eq!(error::parse(&skb, &outer), None);
    }

    /// Echo and other ICMP messages are not errors, whatever they carry.
    #[test]
    fn an_echo_is_no_error((datagram, _) in datagram(), kind in any::<u8>()) {
        let v6 = datagram.source.is_ipv6();
        let is_error = if v6 { (1..=4).contains(&kind) } else { [3, 4, 5, 11, 12].contains(&kind) };
        let control = Control {
            source: datagram.destination.ip(), destination: datagram.source.ip(), kind, code: 0, rest: 0,
            quoted: datagram.packet(),
        };
        let skb = Skb::new(&control.packet());
        let outer = network::parse(&skb, LINK, v6).expect("a network header");
        prop_assert_eq!(error::parse(&skb, &outer).is_some(), is_error);
    }
}
