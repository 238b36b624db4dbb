//! TCP resets and "port unreachable".

use bytemuck::bytes_of;
use proptest::prelude::*;
use proxy_common::packet::{answer, network};
use sidestep_tests::packets::{ACK, Control, Datagram, FIN, RST, SYN, Transport, hexadecimal};

use crate::{
    shapes::datagram_of,
    skb::{LINK, Skb, add},
};

/// The bytes of the answer to a refused packet.
fn answer(packet: &[u8], v6: bool, tcp: bool) -> Option<Vec<u8>> {
    let skb = Skb::new(packet);
    let network = network::parse(&skb, LINK, v6)?;
    match (tcp, v6) {
        (true, false) => answer::reset_v4(&skb, &network).map(|answer| bytes_of(&answer).to_vec()),
        (true, true) => answer::reset_v6(&skb, &network).map(|answer| bytes_of(&answer).to_vec()),
        (false, false) => answer::unreachable_v4(&skb, &network).map(|answer| bytes_of(&answer).to_vec()),
        (false, true) => {
            let mut answer = bytemuck::Zeroable::zeroed();
            answer::unreachable_v6(&skb, &network, &mut answer).then(|| bytes_of(&answer).to_vec())
        }
    }
}

/// A generated packet, with our values in the fields that a sender chooses and that do not depend on the refused
/// packet.
fn ours(mut packet: Vec<u8>, v6: bool) -> Vec<u8> {
    if v6 {
        packet[..4].copy_from_slice(&[0x60, 0, 0, 0]);
        packet[7] = 64;
    } else {
        packet[1] = 0;
        packet[4..8].copy_from_slice(&[0, 0, 0x40, 0]);
        packet[8] = 64;
        packet[10..12].copy_from_slice(&[0, 0]);
        let sum = !add(&packet[..20]);
        packet[10..12].copy_from_slice(&sum.to_ne_bytes());
    }
    packet
}

fn plain() -> impl Strategy<Value = Datagram> {
    let plain =
        |datagram| Datagram { options: Vec::new(), extensions: Vec::new(), identification: None, ..datagram };
    let is_summed = |datagram: &Datagram| !datagram.looks_partial();
    any::<bool>()
        .prop_flat_map(datagram_of)
        .prop_map(plain)
        .prop_filter("its checksum is computed", is_summed)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// RFC 9293, 3.5.2: the reset has the sequence number that the other side expects, or acknowledges all that it
    /// sent. A reset is not answered.
    #[test]
    fn a_segment_is_answered_with_the_reset_that_its_sender_believes(datagram in plain()) {
        let Transport::Tcp { sequence, acknowledgement, control, options } = datagram.transport.clone() else {
            return Ok(());
        };
        let found = answer(&datagram.packet(), datagram.source.is_ipv6(), true);
        if control & RST != 0 {
            prop_assert_eq!(found, None);
            return Ok(());
        }
        let expected = if control & ACK != 0 {
            (acknowledgement, 0, RST)
        } else {
            let marks = u32::from(control & SYN != 0) + u32::from(control & FIN != 0);
            let data = u32::try_from(datagram.payload.len()).expect("a short payload");
            (0, sequence.wrapping_add(data).wrapping_add(marks), RST | ACK)
        };
        let _ = options;
        let transport = Transport::Tcp { sequence: expected.0, acknowledgement: expected.1, control: expected.2, options: Vec::new() };
        let expected = Datagram::new(datagram.destination, datagram.source, transport, Vec::new());
        let mut segment = expected.packet();
        // A reset has a window of 0.
        let at = expected.network_length() + 14;
        let window = u16::from_ne_bytes([segment[at], segment[at + 1]]);
        let checksum = u16::from_ne_bytes([segment[at + 2], segment[at + 3]]);
        let checksum = !add(&[(!checksum).to_ne_bytes(), (!window).to_ne_bytes()].concat());
        segment[at..at + 2].copy_from_slice(&[0, 0]);
        segment[at + 2..at + 4].copy_from_slice(&checksum.to_ne_bytes());
        let (found, expected) = (found.expect("a reset"), ours(segment, datagram.source.is_ipv6()));
        prop_assert!(found == expected, "{}\nexpected{}", hexadecimal(&found), hexadecimal(&expected));
    }

    /// "Port unreachable" quotes the headers of the datagram, by which its sender recognises it.
    #[test]
    fn a_datagram_is_answered_with_port_unreachable(datagram in plain()) {
        if datagram.protocol() != 17 {
            return Ok(());
        }
        let v6 = datagram.source.is_ipv6();
        let mut quoted = datagram.packet();
        quoted.truncate(if v6 { 48 } else { 28 });
        let (kind, code) = if v6 { (1, 4) } else { (3, 3) };
        let (source, destination) = (datagram.destination.ip(), datagram.source.ip());
        let expected = ours(Control { source, destination, kind, code, rest: 0, quoted }.packet(), v6);
        let found = answer(&datagram.packet(), v6, false).expect("an answer");
        prop_assert!(found == expected, "{}\nexpected{}", hexadecimal(&found), hexadecimal(&expected));
    }
}

/// Segments that [`plain`] leaves out are answered too, with a checksum that is still to be computed.
#[test]
fn a_segment_that_looks_partial_is_answered_with_a_partial_checksum() {
    let sides = ["198.51.100.1:2000", "192.0.2.10:30080"].map(|side| side.parse().expect("an address"));
    let asked = (0..1 << 17).map(|sequence| {
        let transport = Transport::Tcp { sequence, acknowledgement: 0, control: SYN, options: Vec::new() };
        Datagram::new(sides[0], sides[1], transport, Vec::new())
    });
    let asked = asked.into_iter().find(Datagram::looks_partial).expect("one sequence number of 65,536");
    let found = answer(&asked.packet(), false, true).expect("a reset");
    // The reset is as long as the segment, and the sum of the pseudo-header is the same in both directions.
    assert_eq!(found[36..38], asked.packet()[36..38]);
}
