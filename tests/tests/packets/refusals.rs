//! Refused packets and the answers to their senders. PO-1, PO-13: an answer; PO-3, ST-1: silence.

use std::net::SocketAddr;

use sidestep_tests::{
    lab,
    packets::{Datagram, SYN, Transport, ethernet, hexadecimal},
};

use crate::{
    judge::judge,
    node::{Kind, Node, PORT},
    test_run::{DROP, Outcome, PASS, REDIRECT, Runner},
};

#[test]
fn refused_packets_are_answered_unless_they_must_be_dropped() {
    let lab = lab!();
    lab.node().run(|| {
        let node = Node::new(&lab, 1 << 12);
        let mut ingress = Runner::new(&node.programs, "ingress", node.uplink);
        for address in node.addresses {
            let v6 = address.is_ipv6();
            let client = SocketAddr::new(
                if v6 { "2001:db8::7".parse().expect("an address") } else { [192, 0, 2, 100].into() },
                45_678,
            );
            let [_, ranges, ..] = Kind::Ranges.frontends(address);
            let [.., cluster_ip] = Kind::Here.frontends(address);
            let mut cases: Vec<(SocketAddr, i32)> =
                vec![(ranges, DROP), (SocketAddr::new(cluster_ip.ip(), PORT + 1), REDIRECT)];
            cases.extend(Kind::None.frontends(address).map(|frontend| (frontend, REDIRECT)));
            cases.extend(Kind::NoneHere.frontends(address).map(|frontend| (frontend, DROP)));
            for (to, expected) in cases {
                let payload = b"some data, of which there may be an odd number.".to_vec();
                for sent in [
                    Datagram::tcp(client, to, SYN, Vec::new()),
                    Datagram::tcp(client, to, 16, payload.clone()),
                    Datagram::tcp(client, to, 1, payload.clone()),
                    Datagram::udp(client, to, Vec::new()),
                    Datagram::udp(client, to, payload),
                ] {
                    let frame = ethernet(&sent.packet());
                    let outcome = ingress.run(&frame);
                    // PO-23: a segment that begins no connection goes to the stack, which refuses it.
                    if matches!(sent.transport, Transport::Tcp { control, .. } if control != SYN) {
                        assert_eq!(outcome, Outcome { action: PASS, frame }, "{sent:?}");
                        continue;
                    }
                    assert_eq!(outcome.action, expected, "{sent:?}");
                    // A frame that a switch has flooded is for another host.
                    let mut flooded = frame.clone();
                    flooded[5] ^= 0xff;
                    let left_alone = Outcome { action: PASS, frame: flooded.clone() };
                    assert_eq!(ingress.run(&flooded), left_alone, "{sent:?}");
                    let verdict = judge(&node, &frame, &outcome);
                    assert_eq!(
                        verdict,
                        Ok(()),
                        "{}\nbecame{}",
                        hexadecimal(&frame),
                        hexadecimal(&outcome.frame)
                    );
                    if expected == REDIRECT {
                        let length = match (sent.protocol(), v6) {
                            (6, false) => 40,
                            (6, true) => 60,
                            (_, false) => 56,
                            (_, true) => 96,
                        };
                        assert_eq!(outcome.frame.len(), 14 + length, "{sent:?}");
                        // If the length changes, the kernel drops the device's sum, and the test run cannot check it.
                        if frame.len() == outcome.frame.len()
                            && let Some(summed) = ingress.run_summed(&frame)
                        {
                            assert!(
                                summed.as_ref().is_ok_and(|summed| *summed == outcome),
                                "{sent:?}: {summed:?}"
                            );
                        }
                    }
                }
            }
        }
    });
}
