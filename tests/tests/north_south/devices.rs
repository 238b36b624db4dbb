//! Devices that are added and deleted, with and without a running agent.

use sidestep_tests::{
    TwoNodes, eventually, in_every_variant,
    namespace::Namespace,
    traffic::{Asker, ask},
    two_nodes::{Routing, ways_in},
};

use crate::serve;

in_every_variant!(
    a_device_that_comes_while_the_agent_runs_is_served,
    a_device_that_came_while_the_agent_did_not_run_is_served,
);

fn a_device_that_comes_while_the_agent_runs_is_served(nodes: &TwoNodes) {
    let server = nodes.backend_there("there").expect("a pod");
    let _agent = serve(nodes, &[&server]);
    for round in 0..3 {
        assert_served(nodes);
        replace(nodes, round);
    }
    assert_served(nodes);
}

fn a_device_that_came_while_the_agent_did_not_run_is_served(nodes: &TwoNodes) {
    let server = nodes.backend_there("there").expect("a pod");
    let mut agent = serve(nodes, &[&server]);
    assert_served(nodes);
    agent.kill().expect("kill -9");
    replace(nodes, 0);
    agent.restart(nodes.lab()).expect("restart");
    assert_served(nodes);
}

fn assert_served(nodes: &TwoNodes) {
    for way in ways_in() {
        eventually("an answer", || nodes.outside().run(|| ask(way.tcp)).is_ok());
        nodes.outside().run(|| Asker::for_address(way.udp)?.ask(way.udp)).expect("an answer");
    }
}

/// Replaces the device that leads to the other node's pods by a new one.
fn replace(nodes: &TwoNodes, round: u8) {
    let node = nodes.node().namespace();
    match nodes.variant().routing {
        Routing::Direct => {
            replace_uplink(node, nodes.switch(), round);
            // The new device has another hardware address, which it does not announce.
            for neighbour in [nodes.outside(), nodes.other_node()] {
                neighbour.namespace().ip_batch("neigh flush dev uplink\n").expect("flushed");
            }
        }
        Routing::Vxlan => replace_vxlan(node, nodes),
    }
}

fn replace_uplink(node: &Namespace, switch: &Namespace, round: u8) {
    let (old, new) = match round {
        0 => ("uplink".to_owned(), "eth1".to_owned()),
        _ => (format!("eth{round}"), format!("eth{}", round + 1)),
    };
    node.ip_batch(&format!(
        "link del {old}\nlink add {new} type veth peer name port{round} netns {}\n",
        switch.name()
    ))
    .expect("a wire");
    switch.ip_batch(&format!("link set port{round} master switch up\n")).expect("a port");
    node.ip_batch(&format!(
        "addr add 192.0.2.10/24 dev {new}
addr add 2001:db8:192::10/64 dev {new} nodad
link set {new} up
route add 10.244.2.0/24 via 192.0.2.11
route add fd00:10:244:2::/64 via 2001:db8:192::11
route add default via 192.0.2.100
route add default via 2001:db8:192::100
"
    ))
    .expect("addresses and routes");
}

fn replace_vxlan(node: &Namespace, nodes: &TwoNodes) {
    node.ip_batch("link del flannel.1\n").expect("deleted");
    nodes.join_vxlan_here().expect("a VXLAN");
}
