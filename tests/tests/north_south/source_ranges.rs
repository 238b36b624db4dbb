//! `loadBalancerSourceRanges` for north-south clients and for the other node's pods.

use proxy_agent::dataplane::cannot_restrict;
use sidestep_tests::{
    Place, TwoNodes, eventually, in_every_variant, skip,
    traffic::{Asker, Conversation, ask, assert_silent},
    two_nodes::{LOAD_BALANCER_IPS, Rules, load_balancer_ips, ways_in, web},
};

in_every_variant!(
    only_north_south_clients_in_a_range_are_admitted,
    pods_of_the_other_node_are_admitted_by_their_address,
    connections_outlive_the_range_that_admitted_them,
);

const OUTSIDE: [&str; 2] = ["192.0.2.100/32", "2001:db8:192::100/128"];
const NOBODY: [&str; 2] = ["192.0.2.99/32", "2001:db8:192::99/128"];

fn assert_served(place: &Place) {
    for way in load_balancer_ips() {
        place.run(|| {
            ask(way.tcp).unwrap_or_else(|error| panic!("TCP to {way:?} from {}: {error}", place.name()));
            let asker = Asker::for_address(way.udp).expect("a socket");
            asker
                .ask(way.udp)
                .unwrap_or_else(|error| panic!("UDP to {way:?} from {}: {error}", place.name()));
        });
    }
}

fn assert_dropped(place: &Place) {
    for way in load_balancer_ips() {
        place.run(|| assert_silent(way.tcp, way.udp)).expect("sockets");
    }
}

/// ST-1: packets of clients outside the ranges are dropped and counted, not refused; the Service's other addresses
/// admit all clients.
fn only_north_south_clients_in_a_range_are_admitted(nodes: &TwoNodes) {
    if let Some(why) = cannot_restrict().expect("the kernel answers") {
        skip!("{why}");
    }
    let servers = [nodes.backend_here("here").expect("a pod"), nodes.backend_there("there").expect("a pod")];
    for server in &servers {
        nodes.publish("web", &web().source_ranges(&OUTSIDE), &[server]).expect("manifests");
        let _agent = nodes.lab().agent().expect("an agent");
        assert_served(nodes.outside());
        assert_dropped(nodes.other_node());
        nodes.publish("web", &web().source_ranges(&NOBODY), &[server]).expect("manifests");
        let [v4, _] = load_balancer_ips();
        eventually("the other ranges are installed", || nodes.outside().run(|| ask(v4.tcp)).is_err());
        assert_dropped(nodes.outside());
        for way in ways_in().into_iter().filter(|way| way.kind != "LoadBalancer IP") {
            nodes.outside().run(|| ask(way.tcp)).unwrap_or_else(|error| panic!("{way:?}: {error}"));
        }
    }
    let status = nodes.lab().sidestep(&["status"]).expect("status");
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(status.contains("source-not-in-ranges"), "{status}");
}

/// ST-1: a pod's packets have its own source, or its node's if a CNI has masqueraded them.
fn pods_of_the_other_node_are_admitted_by_their_address(nodes: &TwoNodes) {
    let [one, another] = ["first", "second"].map(|name| nodes.pod_there(name).expect("a pod"));
    let [v4, v6] = LOAD_BALANCER_IPS;
    let routes = format!("route add {v4} via 192.0.2.10\nroute add {v6} via 2001:db8:192::10\n");
    nodes.other_node().namespace().ip_batch(&routes).expect("routes");
    let server = nodes.backend_here("here").expect("a pod");
    let node = nodes.other_node();
    let judged = if nodes.variant().rules == Rules::Flannel { node } else { &one };
    let ranges = [format!("{}/32", judged.v4), format!("{}/128", judged.v6)];
    nodes.publish("web", &web().source_ranges(&[&ranges[0], &ranges[1]]), &[&server]).expect("manifests");
    let _agent = nodes.lab().agent().expect("an agent");
    assert_served(&one);
    match nodes.variant().rules {
        Rules::None => [&another, node].into_iter().for_each(assert_dropped),
        Rules::Flannel => assert_served(&another),
    }
    assert_dropped(nodes.outside());
}

/// ST-1, ST-4: a change of ranges does not break an established connection.
fn connections_outlive_the_range_that_admitted_them(nodes: &TwoNodes) {
    let servers = [nodes.backend_here("here").expect("a pod"), nodes.backend_there("there").expect("a pod")];
    for server in &servers {
        nodes.publish("web", &web().source_ranges(&OUTSIDE), &[server]).expect("manifests");
        let _agent = nodes.lab().agent().expect("an agent");
        let mut flows = load_balancer_ips().map(|way| {
            let mut flow = nodes.outside().run(|| Conversation::with(way.tcp)).expect("a connection");
            let answer = flow.ask().expect("an answer");
            (flow, answer)
        });
        nodes.publish("web", &web().source_ranges(&NOBODY), &[server]).expect("manifests");
        for way in load_balancer_ips() {
            eventually("the other ranges are installed", || nodes.outside().run(|| ask(way.tcp)).is_err());
        }
        for (flow, answer) in &mut flows {
            assert_eq!(flow.ask().expect("an answer"), *answer);
        }
    }
}
