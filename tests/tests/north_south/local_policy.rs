//! `externalTrafficPolicy: Local`, for north-south clients and for the node and its pods.

use sidestep_tests::{
    TwoNodes,
    cluster::{Backend, spread},
    eventually, in_every_variant,
    traffic::{Asker, ask, assert_silent},
    two_nodes::{WayIn, load_balancer_ips, node_ports, ways_in, web},
};

in_every_variant!(
    only_endpoints_of_this_node_answer_outside,
    without_an_endpoint_here_packets_are_dropped_and_counted,
    the_node_and_its_pods_reach_every_endpoint,
);

fn local(nodes: &TwoNodes, endpoints: &[&Backend]) {
    nodes.publish("web", &web().external_traffic_local(), endpoints).expect("manifests");
}

/// The frontends to which the policy applies: all but the ClusterIPs.
fn external() -> impl Iterator<Item = WayIn> {
    ways_in().into_iter().filter(|way| way.kind != "ClusterIP")
}

/// PO-4, EP-9: local endpoints see the client's address. PO-7: a ClusterIP reaches all endpoints.
fn only_endpoints_of_this_node_answer_outside(nodes: &TwoNodes) {
    let (here, there) =
        (nodes.backend_here("local").expect("a pod"), nodes.backend_there("remote").expect("a pod"));
    local(nodes, &[&here, &there]);
    let _agent = nodes.lab().agent().expect("an agent");
    let outside = nodes.outside();
    for way in external() {
        outside.run(|| {
            for _ in 0..12 {
                let answer = ask(way.tcp).expect("an answer");
                assert_eq!(answer.server, "local", "{way:?}");
                assert!(outside.addresses().contains(&answer.client.ip()), "{way:?}: {answer:?}");
                let (answer, _) =
                    Asker::for_address(way.udp).expect("a socket").ask(way.udp).expect("an answer");
                assert_eq!(answer.server, "local", "{way:?}");
                assert!(outside.addresses().contains(&answer.client.ip()), "{way:?}: {answer:?}");
            }
        });
    }
    for way in ways_in().into_iter().filter(|way| way.kind == "ClusterIP") {
        let answers = outside.run(|| spread(40, || ask(way.tcp).map(|answer| answer.server)));
        assert_eq!(answers.len(), 2, "{way:?}: {answers:?}");
    }
}

/// PO-3: packets are dropped, not refused, so that a load balancer tries another node. A new local endpoint is used at
/// once.
fn without_an_endpoint_here_packets_are_dropped_and_counted(nodes: &TwoNodes) {
    let there = nodes.backend_there("remote").expect("a pod");
    local(nodes, &[&there]);
    let _agent = nodes.lab().agent().expect("an agent");
    for way in node_ports().into_iter().chain(load_balancer_ips()) {
        nodes.outside().run(|| assert_silent(way.tcp, way.udp)).expect("sockets");
    }
    assert_eq!((there.tcp.connections(), there.udp.requests()), (0, 0));
    let status = nodes.lab().sidestep(&["status"]).expect("status");
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(status.contains("no-local-endpoints"), "{status}");

    let here = nodes.backend_here("local").expect("a pod");
    local(nodes, &[&here, &there]);
    for way in external() {
        eventually("the local endpoint answers", || nodes.outside().run(|| ask(way.tcp)).is_ok());
    }
}

/// PO-3: for clients on this node the policy does not restrict the endpoints.
fn the_node_and_its_pods_reach_every_endpoint(nodes: &TwoNodes) {
    let (there, pod) =
        (nodes.backend_there("remote").expect("a pod"), nodes.pod_here("client").expect("a pod"));
    local(nodes, &[&there]);
    let _agent = nodes.lab().agent().expect("an agent");
    for way in external() {
        for place in [&pod, nodes.node()] {
            let answer = place.run(|| ask(way.tcp)).expect("an answer");
            assert_eq!(answer.server, "remote", "{way:?} from {}", place.name());
            let answer = place.run(|| Asker::for_address(way.udp)?.ask(way.udp)).expect("an answer");
            assert_eq!(answer.0.server, "remote", "{way:?} from {}", place.name());
        }
    }
}
