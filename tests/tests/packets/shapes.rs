//! Every shape of header, in both directions, compared byte by byte with a packet made with the translated addresses.
//! PO-4 (clients keep their address if the endpoint is local), FE-1.

use std::net::{IpAddr, SocketAddr};

use sidestep_tests::{
    lab,
    packets::{ACK, Control, Datagram, SYN, Transport, ethernet, hexadecimal, residues},
};

use crate::{
    judge::{ETHERNET, see},
    node::{Kind, Node, is_here},
    test_run::{Outcome, PASS, REDIRECT, Runner},
};

/// Both hooks of a node's device.
struct Hooks<'a> {
    node: &'a Node,
    ingress: Runner<'a>,
    egress: Runner<'a>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Hook {
    Ingress,
    Egress,
}

impl<'a> Hooks<'a> {
    fn new(node: &'a Node) -> Self {
        let runner = |name| Runner::new(&node.programs, name, node.uplink);
        Self { node, ingress: runner("ingress"), egress: runner("egress") }
    }

    /// Runs a hook on a packet; also as from a device that sums the bytes (`CHECKSUM_COMPLETE`), where the kernel can
    /// verify the sum afterwards. (Not for a datagram without a checksum, whose sum the programs leave alone.)
    fn run(&mut self, hook: Hook, packet: &[u8]) -> Outcome {
        let runner = if hook == Hook::Ingress { &mut self.ingress } else { &mut self.egress };
        let outcome = runner.run(&ethernet(packet));
        if residues(packet).transport.is_some()
            && let Some(summed) = runner.run_summed(&ethernet(packet))
        {
            let summed = summed.unwrap_or_else(|error| {
                panic!("{hook:?}: the device's sum is wrong ({error}) after{}", hexadecimal(packet))
            });
            assert_eq!(outcome, summed, "with a device's sum");
        }
        outcome
    }

    /// Asserts that a hook turns `packet` into `expected`.
    fn expect(&mut self, what: &str, hook: Hook, packet: &[u8], expected: &[u8]) {
        let Outcome { action, frame } = self.run(hook, packet);
        assert!(
            action == PASS && frame == ethernet(expected),
            "{what} at {hook:?}: action {action}, {}\nbecame{}\nexpected{}",
            hexadecimal(packet),
            hexadecimal(&frame[ETHERNET..]),
            hexadecimal(expected)
        );
    }

    /// Sends a packet through the node to its endpoint. Returns the packet that the endpoint sees.
    fn forward(&mut self, what: &str, kind: Kind, sent: &Datagram) -> Datagram {
        let v6 = sent.source.is_ipv6();
        let outcome = self.run(Hook::Ingress, &sent.packet());
        let endpoint = see(&outcome.frame).unwrap_or_else(|| panic!("{what}: {outcome:?}")).destination;
        assert!(kind.targets(v6).contains(&endpoint), "{what}: {} led to {endpoint}", sent.destination);
        let inside = sent.to(endpoint);
        self.expect(what, Hook::Ingress, &sent.packet(), &inside.packet());
        if is_here(endpoint.ip()) {
            return inside;
        }
        let outcome = self.run(Hook::Egress, &inside.packet());
        assert_eq!(outcome.action, PASS, "{what}: {:?}", self.node.totals());
        let source = see(&outcome.frame).unwrap_or_else(|| panic!("{what}: {outcome:?}")).source;
        assert_eq!(source.ip(), self.node.addresses[usize::from(v6)], "{what}");
        assert!(self.node.source_ports.contains(&source.port()), "{what}: {source}");
        let outside = inside.from(source);
        self.expect(what, Hook::Egress, &inside.packet(), &outside.packet());
        outside
    }

    /// Sends the endpoint's answer back. `arrived` is the packet that the endpoint saw, `sent` the client's packet.
    fn back(&mut self, what: &str, sent: &Datagram, arrived: &Datagram, answer: &Datagram) {
        let at_client = answer.from(sent.destination).to(sent.source);
        let inside = answer.from(arrived.destination).to(sent.source);
        if arrived.source != sent.source {
            let outside = answer.from(arrived.destination).to(arrived.source);
            self.expect(what, Hook::Ingress, &outside.packet(), &inside.packet());
        }
        self.expect(what, Hook::Egress, &inside.packet(), &at_client.packet());
    }
}

/// A client's address, with this port.
fn client(v6: bool, port: u16) -> SocketAddr {
    let ip: IpAddr = if v6 { "fd00:c1::1".parse().expect("an address") } else { [192, 0, 2, 100].into() };
    SocketAddr::new(ip, port)
}

/// Headers of every shape, each in the first packet of a flow.
fn shapes(v6: bool, to: SocketAddr, first_port: u16) -> Vec<(String, Datagram)> {
    let mut shapes = Vec::new();
    let mut port = first_port;
    let mut add = |name: &str, transport: Transport, change: &dyn Fn(Datagram) -> Datagram| {
        for payload in [&b""[..], b"odd", b"an even number of bytes."] {
            port += 1;
            let plain = Datagram::new(client(v6, port), to, transport.clone(), payload.to_vec());
            let name = format!("{name}, {} bytes, {to}", payload.len());
            shapes.push((name, change(plain)));
        }
    };
    let syn = |options| Transport::Tcp { sequence: 7, acknowledgement: 0, control: SYN, options };
    let transports = [
        ("TCP", syn(Vec::new())),
        ("TCP with options", syn(vec![2, 4, 5, 0xb4, 1, 1, 4, 2])),
        ("TCP with all options", syn(vec![1; 40])),
        ("UDP", Transport::Udp { checksum: true }),
        ("UDP without checksum", Transport::Udp { checksum: false }),
    ];
    for (name, transport) in transports {
        add(name, transport.clone(), &|plain| plain);
        if !v6 {
            for length in [4, 8, 40] {
                let name = format!("{name} after {length} bytes of options");
                add(&name, transport.clone(), &|plain| Datagram { options: vec![1; length], ..plain });
            }
            continue;
        }
        let body = |bytes: usize| vec![1; bytes];
        for (kind, extension) in
            [(0, "hop-by-hop options"), (60, "destination options"), (43, "routing"), (51, "authentication")]
        {
            let name = format!("{name} after {extension}");
            add(&name, transport.clone(), &|plain| Datagram { extensions: vec![(kind, body(14))], ..plain });
        }
        add(&format!("{name} in an atomic fragment"), transport.clone(), &|plain| Datagram {
            identification: Some(0x0a0b_0c0d),
            ..plain
        });
        add(&format!("{name} after all extension headers"), transport, &|plain| Datagram {
            extensions: vec![(0, body(6)), (43, body(22)), (51, body(6)), (60, body(14))],
            identification: Some(9),
            ..plain
        });
    }
    shapes
}

/// The answer to a packet, with headers of the same shape.
fn answer_to(sent: &Datagram) -> Datagram {
    let transport = match &sent.transport {
        Transport::Tcp { options, .. } => Transport::Tcp {
            sequence: 0xffff_fff0,
            acknowledgement: 8,
            control: SYN | ACK,
            options: options.clone(),
        },
        other => other.clone(),
    };
    Datagram { source: sent.destination, destination: sent.source, transport, ..sent.clone() }
}

/// Runs a test on a node in a lab of its own.
fn on_a_node(test: impl FnOnce(&Node) + Send) {
    let lab = lab!();
    lab.node().run(|| test(&Node::new(&lab, 1 << 12)));
}

#[test]
fn every_shape_of_header_is_translated_there_and_back() {
    on_a_node(|node| {
        let mut hooks = Hooks::new(node);
        for (address, kind) in
            node.addresses.into_iter().flat_map(|node| [Kind::Here, Kind::Remote].map(|kind| (node, kind)))
        {
            // One client port through two frontends to one endpoint would be a conflict.
            for (first_port, frontend) in (10_000..).step_by(1000).zip(kind.frontends(address)) {
                for (what, sent) in shapes(address.is_ipv6(), frontend, first_port) {
                    let arrived = hooks.forward(&what, kind, &sent);
                    hooks.back(&what, &sent, &arrived, &answer_to(&sent));
                }
            }
        }
    });
}

#[test]
fn fragments_of_a_datagram_go_where_the_first_one_went() {
    on_a_node(|node| {
        let mut hooks = Hooks::new(node);
        for address in node.addresses {
            let v6 = address.is_ipv6();
            for kind in [Kind::Here, Kind::Remote] {
                let [frontend, ..] = kind.frontends(address);
                let payload: Vec<u8> = (0..64).collect();
                let sent = Datagram::udp(client(v6, 50_000), frontend, payload);
                let sent = Datagram { identification: Some(77), ..sent };
                // A whole packet begins the flow, so that the expected fragments are known.
                let whole = Datagram { identification: None, ..sent.clone() };
                let arrived = hooks.forward("whole", kind, &whole);
                let inside = sent.to(arrived.destination);
                let late = Datagram { identification: Some(78), ..sent.clone() }.fragments(24)[1].clone();
                // The program holds it, and it arrives again by the device's own queue.
                let held = Outcome { action: REDIRECT, frame: ethernet(&late) };
                assert_eq!(hooks.ingress.run(&ethernet(&late)), held, "a late fragment");
                for ((part, inside), outside) in sent
                    .fragments(24)
                    .iter()
                    .zip(inside.fragments(24))
                    .zip(inside.from(arrived.source).fragments(24))
                {
                    hooks.expect("a fragment", Hook::Ingress, part, &inside);
                    hooks.expect("a fragment", Hook::Egress, &inside, &outside);
                }
            }
        }
    });
}

/// ICMP errors, such as those of path MTU discovery, quote the packet as its sender knows it.
#[test]
fn errors_are_translated_with_the_packets_that_they_quote() {
    on_a_node(|node| {
        let mut hooks = Hooks::new(node);
        for address in node.addresses {
            let v6 = address.is_ipv6();
            let router: IpAddr =
                if v6 { "fd00:bad::1".parse().expect("an address") } else { [198, 51, 100, 1].into() };
            let (kind, code, lengths) = if v6 { (2, 0, [20, 8, 40]) } else { (3, 4, [20, 8, 40]) };
            for (number, (service, transport)) in (0..).zip([
                (Kind::Here, Transport::Udp { checksum: true }),
                (Kind::Remote, Transport::Udp { checksum: true }),
                (Kind::Remote, Transport::Udp { checksum: false }),
                (Kind::Remote, Datagram::tcp(client(v6, 1), client(v6, 1), SYN, Vec::new()).transport),
            ]) {
                let [frontend, ..] = service.frontends(address);
                let sent = Datagram::new(client(v6, 45_000 + number), frontend, transport, vec![9; 40]);
                let arrived = hooks.forward("the packet", service, &sent);
                let inside = sent.to(arrived.destination);
                let reply = answer_to(&sent);
                let reply_inside = reply.from(arrived.destination);
                for length in lengths {
                    let error = |source: IpAddr, destination: IpAddr, about: &Datagram| {
                        let mut quoted = about.packet();
                        quoted.truncate(about.network_length() + length);
                        Control { source, destination, kind, code, rest: 1400, quoted }.packet()
                    };
                    let what = format!("an error that quotes {length} bytes of {sent:?}");
                    // An MTU on the way to the endpoint is too small: the client gets the error, from the frontend.
                    let there = error(router, inside.source.ip(), &inside);
                    let at_client = error(frontend.ip(), sent.source.ip(), &sent);
                    if arrived.source != sent.source {
                        let outside = error(router, arrived.source.ip(), &arrived);
                        hooks.expect(&what, Hook::Ingress, &outside, &there);
                    }
                    hooks.expect(&what, Hook::Egress, &there, &at_client);
                    // An MTU on the way to the client is too small: the endpoint gets the error.
                    let back = error(router, frontend.ip(), &reply);
                    hooks.expect(
                        &what,
                        Hook::Ingress,
                        &back,
                        &error(router, arrived.destination.ip(), &reply_inside),
                    );
                }
            }
        }
    });
}

/// The programs ignore frames with a VLAN tag, and packets of other protocols, for other addresses, or cut short.
#[test]
fn packets_for_no_service_are_left_alone() {
    on_a_node(|node| {
        let mut hooks = Hooks::new(node);
        for address in node.addresses {
            let v6 = address.is_ipv6();
            let [frontend, ..] = Kind::Here.frontends(address);
            let sent = Datagram::tcp(client(v6, 44_444), frontend, SYN, Vec::new());
            let mut frames = Vec::new();
            for tag in [&[0x81, 0, 0, 5][..], &[0x88, 0xa8, 0, 5], &[0x88, 0xa8, 0, 5, 0x81, 0, 0, 6]] {
                let frame = ethernet(&sent.packet());
                frames.push([&frame[..12], tag, &frame[12..]].concat());
            }
            let other_port = SocketAddr::new(frontend.ip(), 31_999);
            let other_address = SocketAddr::new(client(v6, 1).ip(), frontend.port());
            frames.extend([other_port, other_address].map(|to| ethernet(&sent.to(to).packet())));
            let sctp = Datagram { transport: Transport::Sctp, ..sent.clone() };
            frames.push(ethernet(&sctp.packet()));
            // A reset from a client without a record.
            frames.push(ethernet(&Datagram::tcp(client(v6, 44_445), frontend, 4, Vec::new()).packet()));
            let whole = ethernet(&sent.packet());
            let headers = ETHERNET + sent.network_length() + 14;
            frames.extend((ETHERNET..headers).map(|length| whole[..length].to_vec()));
            let mut arp = whole;
            arp[12..14].copy_from_slice(&[8, 6]);
            frames.push(arp);
            if v6 {
                let mapped = |port| SocketAddr::new("::ffff:192.0.2.100".parse().expect("an address"), port);
                frames.push(ethernet(&sent.from(mapped(5)).packet()));
                let node = sidestep_tests::topology::NODE_V4.to_ipv6_mapped();
                frames.push(ethernet(&sent.to(SocketAddr::new(node.into(), frontend.port())).packet()));
            }
            for frame in frames {
                for runner in [&mut hooks.ingress, &mut hooks.egress] {
                    let outcome = runner.run(&frame);
                    assert_eq!(
                        outcome,
                        Outcome { action: PASS, frame: frame.clone() },
                        "{}",
                        hexadecimal(&frame)
                    );
                }
            }
        }
    });
}
