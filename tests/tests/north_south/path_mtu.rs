//! Path MTU discovery: TCP learns of an MTU on the path that is smaller than at its ends, in both directions.
//!
//! The small MTU is a route's. The host that cannot forward a larger packet there sends an ICMP error, which has to
//! reach the sender and to quote the packet as the sender sent it.

use std::net::IpAddr;

use sidestep_tests::{
    Place, TwoNodes,
    cluster::HTTP_PORT,
    in_every_variant,
    snmp::counter,
    traffic::{EchoServer, echo_through},
    two_nodes::{Routing, Rules, Variant, node_ports, web},
};

in_every_variant!(
    a_small_mtu_from_this_node_to_a_local_endpoint,
    a_small_mtu_from_this_node_to_the_other_one,
    a_small_mtu_from_the_other_node_to_the_endpoint,
    a_small_mtu_back_to_the_client,
);

const NARROW: u32 = 1300;
const BYTES: usize = 256 << 10;

/// The counter, by family, of received ICMP errors of the type that reports an MTU.
const TOO_BIG: [&str; 2] = ["Icmp.InDestUnreachs", "Icmp6InPktTooBigs"];

/// This node sends the error to the client.
fn a_small_mtu_from_this_node_to_a_local_endpoint(nodes: &TwoNodes) {
    let here = nodes.pod_here("here").expect("a pod");
    narrow(nodes.node(), here.addresses(), "dev pods");
    discovered(nodes, &here, nodes.outside());
}

/// This node sends the error to the client.
fn a_small_mtu_from_this_node_to_the_other_one(nodes: &TwoNodes) {
    let there = nodes.pod_there("narrow-here").expect("a pod");
    for (address, via) in there.addresses().into_iter().zip(ways_there(nodes)) {
        narrow(nodes.node(), [address], &via);
    }
    discovered(nodes, &there, nodes.outside());
}

/// The other node sends the error to this node, which forwards it to the client.
fn a_small_mtu_from_the_other_node_to_the_endpoint(nodes: &TwoNodes) {
    if nodes.variant().rules == Rules::Flannel && nodes.variant().routing == Routing::Direct {
        // A CNI's rules forward only packets from pods, and so not the other node's ICMP error.
        return;
    }
    let there = nodes.pod_there("there").expect("a pod");
    narrow(nodes.other_node(), there.addresses(), "dev pods");
    discovered(nodes, &there, nodes.outside());
}

/// This node sends the error to the pod, on either node.
fn a_small_mtu_back_to_the_client(nodes: &TwoNodes) {
    narrow(nodes.node(), nodes.outside().addresses(), "dev uplink");
    for pod in [nodes.pod_here("here").expect("a pod"), nodes.pod_there("there").expect("a pod")] {
        discovered(nodes, &pod, &pod);
    }
}

/// The routes from this node to the other node's pods.
fn ways_there(nodes: &TwoNodes) -> [String; 2] {
    match nodes.variant().routing {
        Routing::Direct => ["via 192.0.2.11", "via 2001:db8:192::11"].map(str::to_owned),
        Routing::Vxlan => {
            ["via 10.244.2.0", "via fd00:10:244:2::"].map(|via| format!("{via} dev flannel.1 onlink"))
        }
    }
}

fn narrow<const N: usize>(place: &Place, addresses: [IpAddr; N], way: &str) {
    for address in addresses {
        let prefix = if address.is_ipv4() { 32 } else { 128 };
        let route = format!("route add {address}/{prefix} {way} mtu {NARROW}\n");
        place.namespace().ip_batch(&route).expect("a route");
    }
}

/// Asserts that large amounts of data pass, and that `sender` received an error.
fn discovered(nodes: &TwoNodes, pod: &Place, sender: &Place) {
    let _server = EchoServer::start(pod, HTTP_PORT).expect("a server");
    nodes.publish_places("web", &web(), &[pod]).expect("manifests");
    let _agent = nodes.lab().agent().expect("an agent");
    for (way, too_big) in node_ports().into_iter().zip(TOO_BIG) {
        if is_silent_itself(nodes, pod, sender) && way.tcp.is_ipv6() {
            continue;
        }
        let before = counter(sender, too_big).expect("a counter");
        let echoed = nodes.outside().run(|| echo_through(way.tcp, BYTES));
        echoed.unwrap_or_else(|error| panic!("{way:?} to {}: {error}", pod.name()));
        let after = counter(sender, too_big).expect("a counter");
        assert!(after > before, "{way:?} to {}: no ICMP error reported the MTU", pod.name());
    }
}

/// Where a CNI masquerades towards a VXLAN, Linux 6.18 sends no such error in IPv6, with or without Sidestep.
fn is_silent_itself(nodes: &TwoNodes, pod: &Place, sender: &Place) -> bool {
    nodes.variant() == Variant::VXLAN_WITH_CNI_RULES
        && pod.name() == "narrow-here"
        && sender.name() == "outside"
}
