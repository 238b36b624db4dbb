//! Packets to and from an endpoint elsewhere that are sent on past the stack: all but the first ones of a flow, and as
//! long as the stack would do the same.

use std::{net::SocketAddr, time::Duration};

use sidestep_tests::{
    Agent, Place, TwoNodes,
    cluster::Backend,
    in_every_variant,
    snmp::counter,
    sockets::set_option,
    traffic::{Asker, Conversation},
    two_nodes::{Rules, node_ports, web},
};

in_every_variant!(
    what_follows_the_first_packets_passes_the_stack_by,
    with_through_stack_the_stack_has_every_packet,
    the_way_past_the_stack_is_a_hop_like_the_other,
    the_routes_are_asked_all_the_time,
);

const QUESTIONS: u64 = 200;

/// Packets that the node's stack has forwarded, of the family.
fn forwarded(node: &Place, address: SocketAddr) -> u64 {
    let name = if address.is_ipv4() { "Ip.ForwDatagrams" } else { "Ip6OutForwDatagrams" };
    counter(node, name).expect("a counter")
}

fn serve(nodes: &TwoNodes, arguments: &[&str]) -> (Backend, Agent) {
    let there = nodes.backend_there("there").expect("a pod");
    nodes.publish("web", &web(), &[&there]).expect("manifests");
    let agent = Agent::reading(nodes.lab()).arguments(arguments).started(nodes.lab()).expect("an agent");
    (there, agent)
}

/// Asks over one connection and one socket, and says how many packets the node's stack forwarded for that.
fn ask(nodes: &TwoNodes) -> Vec<(SocketAddr, u64)> {
    let node_ports = node_ports().into_iter();
    let each = node_ports.flat_map(|way| {
        let before = forwarded(nodes.node(), way.tcp);
        nodes.outside().run(|| {
            let mut conversation = Conversation::with(way.tcp).expect("a connection");
            for _ in 0..QUESTIONS {
                conversation.ask().expect("an answer");
            }
        });
        let between = forwarded(nodes.node(), way.tcp);
        nodes.outside().run(|| {
            let asker = Asker::for_address(way.udp).expect("a socket");
            asker.connect(way.udp).expect("connect");
            for _ in 0..QUESTIONS {
                asker.ask_peer().expect("an answer");
            }
        });
        let after = forwarded(nodes.node(), way.udp);
        [(way.tcp, between - before), (way.udp, after - between)]
    });
    each.collect()
}

/// Where a CNI masquerades what comes from outside, the stack has to see every packet.
fn what_follows_the_first_packets_passes_the_stack_by(nodes: &TwoNodes) {
    let (_there, _agent) = serve(nodes, &[]);
    for (way, forwarded) in ask(nodes) {
        match nodes.variant().rules {
            // A handshake, what is sent before it is confirmed, and the end.
            Rules::None => assert!((2..20).contains(&forwarded), "{way}: {forwarded} packets"),
            Rules::Flannel => assert!(forwarded >= 2 * QUESTIONS, "{way}: {forwarded} packets"),
        }
    }
}

fn with_through_stack_the_stack_has_every_packet(nodes: &TwoNodes) {
    let (_there, _agent) = serve(nodes, &["--through-stack"]);
    for (way, forwarded) in ask(nodes) {
        assert!(forwarded >= 2 * QUESTIONS, "{way}: {forwarded} packets");
    }
}

/// A client outside whose flow is sent on past the stack by now.
fn in_conversation(nodes: &TwoNodes, address: SocketAddr) -> Asker {
    let asker = nodes.outside().run(|| Asker::for_address(address)).expect("a socket");
    asker.connect(address).expect("connect");
    for _ in 0..3 {
        asker.ask_peer().expect("an answer");
    }
    asker
}

fn let_live(asker: &Asker, way: SocketAddr, hops: i32) {
    let (level, option) = if way.is_ipv4() {
        (libc::IPPROTO_IP, libc::IP_TTL)
    } else {
        (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS)
    };
    set_option(asker.socket(), level, option, hops).expect("an option");
}

/// A packet that may go two hops reaches the other node and no further, one with three the pod.
fn the_way_past_the_stack_is_a_hop_like_the_other(nodes: &TwoNodes) {
    let (there, _agent) = serve(nodes, &[]);
    for way in node_ports() {
        let asker = in_conversation(nodes, way.udp);
        for (hops, arrives) in [(1, false), (2, false), (3, true)] {
            let_live(&asker, way.udp, hops);
            let before = there.udp.requests();
            assert_eq!(asker.ask_peer().is_ok(), arrives, "{way:?}: {hops} hops");
            assert_eq!(there.udp.requests() > before, arrives, "{way:?}: {hops} hops");
        }
    }
}

/// A flow that is sent on past the stack is not when the route goes, and is again when it is back.
fn the_routes_are_asked_all_the_time(nodes: &TwoNodes) {
    let (there, _agent) = serve(nodes, &[]);
    for way in node_ports() {
        let asker = in_conversation(nodes, way.udp);
        let pod = there.place.addresses().into_iter().find(|address| address.is_ipv4() == way.udp.is_ipv4());
        let pod = pod.expect("an address");
        let (length, before) = (if pod.is_ipv4() { 32 } else { 128 }, there.udp.requests());
        nodes.node().namespace().ip_batch(&format!("route add blackhole {pod}/{length}\n")).expect("a route");
        // Next hops are kept for a tick of the kernel's clock, which is 10 ms at most.
        std::thread::sleep(Duration::from_millis(20));
        assert!(asker.ask_peer().is_err(), "{way:?}");
        assert_eq!(there.udp.requests(), before, "{way:?}");
        nodes.node().namespace().ip_batch(&format!("route del blackhole {pod}/{length}\n")).expect("a route");
        asker.ask_peer().unwrap_or_else(|error| panic!("{way:?}: {error}"));
    }
}
