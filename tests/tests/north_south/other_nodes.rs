//! The other node and its pods as clients, and NodePorts of the other node.

use sidestep_tests::{
    TwoNodes, in_every_variant,
    traffic::{Asker, TcpServer, ask},
    two_nodes::{HTTP_NODE_PORT, Rules, node_ports, ways_in},
};

use crate::serve;

in_every_variant!(
    the_other_node_and_its_pods_are_clients_like_others,
    a_pod_of_the_other_node_reaches_itself,
    the_other_nodes_node_port_is_its_own,
);

/// PO-9: this node serves clients on the other node, even if answers return by another way.
fn the_other_node_and_its_pods_are_clients_like_others(nodes: &TwoNodes) {
    let client = nodes.pod_there("client").expect("a pod");
    for server in [nodes.backend_here("here").expect("a pod"), nodes.backend_there("there").expect("a pod")] {
        let _agent = serve(nodes, &[&server]);
        for place in [&client, nodes.other_node()] {
            for way in node_ports() {
                place.run(|| {
                    let who = format!("{way:?} of {} from {}", server.place.name(), place.name());
                    let answer = ask(way.tcp).unwrap_or_else(|error| panic!("TCP to {who}: {error}"));
                    assert_eq!(answer.server, server.place.name(), "{who}");
                    let asker = Asker::for_address(way.udp).expect("a socket");
                    let answer = asker.ask(way.udp).unwrap_or_else(|error| panic!("UDP to {who}: {error}"));
                    assert_eq!(answer.0.server, server.place.name(), "{who}");
                });
            }
        }
    }
}

/// PO-22: hairpin through this node: the packet is masqueraded, because a pod drops packets from its own address.
fn a_pod_of_the_other_node_reaches_itself(nodes: &TwoNodes) {
    let server = nodes.backend_there("there").expect("a pod");
    let _agent = serve(nodes, &[&server]);
    for way in node_ports() {
        server.place.run(|| {
            let answer = ask(way.tcp).unwrap_or_else(|error| panic!("TCP to {way:?}: {error}"));
            assert!(nodes.preferred_sources().contains(&answer.client.ip()), "{way:?}: {answer:?}");
            let asker = Asker::for_address(way.udp).expect("a socket");
            let (answer, source) =
                asker.ask(way.udp).unwrap_or_else(|error| panic!("UDP to {way:?}: {error}"));
            assert!(nodes.preferred_sources().contains(&answer.client.ip()), "{way:?}: {answer:?}");
            assert_eq!(source, way.udp);
        });
    }
}

/// PO-9: this node forwards packets to the other node's NodePort untouched, from outside or from a pod.
fn the_other_nodes_node_port_is_its_own(nodes: &TwoNodes) {
    let server = nodes.backend_here("here").expect("a pod");
    let pod = nodes.pod_here("pod").expect("a pod");
    let _agent = serve(nodes, &[&server]);
    let _other = TcpServer::start(nodes.other_node(), "other-node", HTTP_NODE_PORT).expect("a server");
    let through =
        "route add 192.0.2.11/32 via 192.0.2.10\nroute add 2001:db8:192::11/128 via 2001:db8:192::10\n";
    nodes.outside().namespace().ip_batch(through).expect("routes");
    for address in nodes.other_node().addresses() {
        // A CNI's rules forward for pods only.
        let outside = (nodes.variant().rules == Rules::None).then_some(nodes.outside());
        for place in [&pod].into_iter().chain(outside) {
            let answer = place.run(|| ask((address, HTTP_NODE_PORT).into())).expect("an answer");
            assert_eq!(answer.server, "other-node", "from {}", place.name());
        }
    }
    for way in ways_in() {
        assert_eq!(nodes.outside().run(|| ask(way.tcp)).expect("an answer").server, "here");
    }
}
