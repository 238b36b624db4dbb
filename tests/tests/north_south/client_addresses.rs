//! Which source address an endpoint sees, for every frontend: the client's on this node, this node's on another.

use std::net::{IpAddr, SocketAddr};

use sidestep_tests::{
    TwoNodes,
    cluster::Backend,
    eventually, in_every_variant,
    traffic::{Asker, Conversation},
    two_nodes::{Routing, Rules, WayIn, ways_in},
};

use crate::serve;

in_every_variant!(
    an_endpoint_on_this_node_sees_the_client,
    an_endpoint_on_another_node_sees_this_node,
    the_source_is_the_address_that_the_route_prefers,
    packets_masqueraded_by_the_cni_are_not_masqueraded_again,
    every_endpoint_gets_its_share,
);

/// Connects over TCP and UDP from the calling host; returns the clients that the endpoint saw.
fn seen(nodes: &TwoNodes, way: WayIn, server: &Backend) -> [SocketAddr; 2] {
    nodes.outside().run(|| {
        let mut conversation = Conversation::with(way.tcp).unwrap_or_else(|error| panic!("{way:?}: {error}"));
        let first = conversation.ask().expect("an answer");
        assert_eq!(first.server, server.place.name());
        assert_eq!(conversation.ask().expect("another answer"), first);
        assert_eq!(conversation.peer().expect("a peer"), way.tcp);
        let asker = Asker::for_address(way.udp).expect("a socket");
        let (answer, source) = asker.ask(way.udp).unwrap_or_else(|error| panic!("{way:?}: {error}"));
        assert_eq!((answer.server.as_str(), source), (server.place.name(), way.udp));
        assert_eq!(asker.ask(way.udp).expect("another answer").0, answer);
        [first.client, answer.client]
    })
}

/// PO-4, PO-5, PO-7, FE-4, FE-5: no masquerading where it is not needed. PO-16: whatever the policy of FORWARD.
fn an_endpoint_on_this_node_sees_the_client(nodes: &TwoNodes) {
    let server = nodes.backend_here("local").expect("a pod");
    let _agent = serve(nodes, &[&server]);
    let outside: [IpAddr; 2] = nodes.outside().addresses();
    for way in ways_in() {
        let clients = seen(nodes, way, &server);
        assert!(clients.iter().all(|client| outside.contains(&client.ip())), "{way:?}: {clients:?}");
    }
}

/// PO-5, PO-7: the source is an address of this node and a port of the reserved range, which no socket has.
fn an_endpoint_on_another_node_sees_this_node(nodes: &TwoNodes) {
    let server = nodes.backend_there("remote").expect("a pod");
    let _agent = serve(nodes, &[&server]);
    let reserved = reserved_ports(nodes);
    for way in ways_in() {
        for client in seen(nodes, way, &server) {
            assert!(nodes.preferred_sources().contains(&client.ip()), "{way:?}: {client}");
            if nodes.variant().rules == Rules::None {
                assert!(reserved.contains(&client.port()), "{way:?}: {client} is not within {reserved:?}");
            }
        }
    }
}

/// A route may have a preferred source (`src`), and may change while flows exist.
fn the_source_is_the_address_that_the_route_prefers(nodes: &TwoNodes) {
    let server = nodes.backend_there("remote").expect("a pod");
    let _agent = serve(nodes, &[&server]);
    if nodes.variant().rules == Rules::Flannel {
        // A CNI's masquerading uses the first address of the device.
        return;
    }
    let sources: [IpAddr; 2] =
        ["192.0.2.77", "2001:db8:192::77"].map(|source| source.parse().expect("an address"));
    let (device, vias) = match nodes.variant().routing {
        Routing::Direct => ("uplink", ["192.0.2.11", "2001:db8:192::11"]),
        Routing::Vxlan => ("flannel.1", ["10.244.2.0", "fd00:10:244:2::"]),
    };
    let [v4, v6] = sources;
    nodes
        .node()
        .namespace()
        .ip_batch(&format!(
            "addr add {v4}/32 dev lo\naddr add {v6}/128 dev lo nodad
route replace 10.244.2.0/24 via {} dev {device} src {v4} onlink
route del fd00:10:244:2::/64 via {} dev {device}
route add fd00:10:244:2::/64 via {} dev {device} src {v6} onlink\n",
            vias[0], vias[1], vias[1]
        ))
        .expect("routes");
    let back =
        "route add 192.0.2.77/32 via 192.0.2.10\nroute add 2001:db8:192::77/128 via 2001:db8:192::10\n";
    nodes.other_node().namespace().ip_batch(back).expect("routes");
    for way in ways_in() {
        eventually("the new source", || {
            seen(nodes, way, &server).iter().all(|client| sources.contains(&client.ip()))
        });
    }
}

/// The packet leaves with the source and port that the CNI's rules chose, which conntrack shows.
fn packets_masqueraded_by_the_cni_are_not_masqueraded_again(nodes: &TwoNodes) {
    if nodes.variant().rules == Rules::None {
        return;
    }
    let server = nodes.backend_there("remote").expect("a pod");
    let _agent = serve(nodes, &[&server]);
    for way in ways_in() {
        let [tcp, udp] = seen(nodes, way, &server);
        let tracked = conntrack(nodes);
        for client in [tcp, udp] {
            let reply = format!("dst={} ", client.ip());
            let port = format!("dport={} ", client.port());
            let known = tracked.lines().any(|line| line.contains(&reply) && line.contains(&port));
            assert!(known, "{way:?}: the CNI's rules did not choose {client}:\n{tracked}");
        }
    }
}

/// PO-5: endpoints on both nodes are chosen, and every answer finds its way back.
fn every_endpoint_gets_its_share(nodes: &TwoNodes) {
    let servers =
        [nodes.backend_here("local").expect("a pod"), nodes.backend_there("remote").expect("a pod")];
    let _agent = serve(nodes, &[&servers[0], &servers[1]]);
    for way in ways_in() {
        let answers = nodes.outside().run(|| {
            sidestep_tests::cluster::spread(40, || {
                sidestep_tests::traffic::ask(way.tcp).map(|answer| answer.server)
            })
        });
        assert_eq!(answers.len(), 2, "{way:?}: {answers:?}");
    }
}

/// The reserved ports for masqueraded packets.
fn reserved_ports(nodes: &TwoNodes) -> std::ops::RangeInclusive<u16> {
    let file = "/proc/sys/net/ipv4/ip_local_reserved_ports";
    let text = nodes.node().run(|| std::fs::read_to_string(file)).expect("the reserved ports");
    // NodePorts have smaller numbers and precede them.
    let range = text.trim().rsplit(',').next().and_then(|range| range.split_once('-'));
    let (first, last) = range.unwrap_or_else(|| panic!("{file} is {text:?}"));
    first.parse().expect("a port")..=last.parse().expect("a port")
}

fn conntrack(nodes: &TwoNodes) -> String {
    ["ipv4", "ipv6"]
        .map(|family| {
            let mut command = std::process::Command::new("conntrack");
            command.args(["-L", "-f", family]);
            let output = nodes.node().run(|| command.output()).expect("the program `conntrack`");
            String::from_utf8_lossy(&output.stdout).into_owned()
        })
        .concat()
}
