//! The fast path: it forwards all but the first packets of a flow with an endpoint on another node, as long as the
//! stack would forward them in the same way.

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
    all_but_the_first_packets_take_the_fast_path,
    with_through_stack_the_stack_forwards_every_packet,
    the_fast_path_decrements_the_hop_limit,
    the_fast_path_follows_routes,
);

const QUESTIONS: u64 = 200;

/// The number of packets of this family that the node's stack has forwarded.
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

/// Sends requests over one connection and one socket, and returns how many of their packets the node's stack forwarded.
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

/// Where a CNI masquerades north-south packets, the stack has to see every packet.
fn all_but_the_first_packets_take_the_fast_path(nodes: &TwoNodes) {
    let (_there, _agent) = serve(nodes, &[]);
    for (way, forwarded) in ask(nodes) {
        match nodes.variant().rules {
            // The handshake, packets before the connection is confirmed, and its end.
            Rules::None => assert!((2..20).contains(&forwarded), "{way}: {forwarded} packets"),
            Rules::Flannel => assert!(forwarded >= 2 * QUESTIONS, "{way}: {forwarded} packets"),
        }
    }
}

fn with_through_stack_the_stack_forwards_every_packet(nodes: &TwoNodes) {
    let (_there, _agent) = serve(nodes, &["--through-stack"]);
    for (way, forwarded) in ask(nodes) {
        assert!(forwarded >= 2 * QUESTIONS, "{way}: {forwarded} packets");
    }
}

/// A north-south client whose flow already uses the fast path.
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

/// A packet with a hop limit of two gets as far as the other node, one with three reaches the pod.
fn the_fast_path_decrements_the_hop_limit(nodes: &TwoNodes) {
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

/// The fast path stops when the route is removed, and resumes when it is back.
fn the_fast_path_follows_routes(nodes: &TwoNodes) {
    let (there, _agent) = serve(nodes, &[]);
    for way in node_ports() {
        let asker = in_conversation(nodes, way.udp);
        let pod = there.place.addresses().into_iter().find(|address| address.is_ipv4() == way.udp.is_ipv4());
        let pod = pod.expect("an address");
        let (length, before) = (if pod.is_ipv4() { 32 } else { 128 }, there.udp.requests());
        nodes.node().namespace().ip_batch(&format!("route add blackhole {pod}/{length}\n")).expect("a route");
        // The programs cache next hops for a tick of the kernel's clock, 10 ms at most.
        std::thread::sleep(Duration::from_millis(20));
        assert!(asker.ask_peer().is_err(), "{way:?}");
        assert_eq!(there.udp.requests(), before, "{way:?}");
        nodes.node().namespace().ip_batch(&format!("route del blackhole {pod}/{length}\n")).expect("a route");
        asker.ask_peer().unwrap_or_else(|error| panic!("{way:?}: {error}"));
    }
}
