//! North-south clients of a Service without endpoints: refused at once, at a limited rate.

use std::{
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use sidestep_tests::{
    Place, TwoNodes, eventually, in_every_variant,
    snmp::counter,
    traffic::{self, Asker, TcpServer, ask},
    two_nodes::{WayIn, cluster_ips, load_balancer_ips, node_ports, ways_in},
};

use crate::serve;

in_every_variant!(
    a_service_without_endpoints_refuses_at_once,
    other_ports_of_a_cluster_ip_refuse,
    other_ports_of_a_load_balancer_ip_pass,
    refusals_are_limited,
);

/// The counter of received ICMP "unreachable" errors.
const ERRORS: &str = "Icmp.InDestUnreachs";

fn assert_refused(place: &Place, WayIn { tcp, udp, .. }: WayIn) {
    place.run(|| traffic::assert_refused(tcp, udp)).expect("sockets");
}

/// PO-1: TCP gets a reset, UDP an ICMP error; a new endpoint is used at once.
fn a_service_without_endpoints_refuses_at_once(nodes: &TwoNodes) {
    let _agent = serve(nodes, &[]);
    for way in ways_in() {
        assert_refused(nodes.outside(), way);
    }
    let status = nodes.lab().sidestep(&["status"]).expect("status");
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(status.contains("no-endpoints"), "{status}");

    let server = nodes.backend_there("remote").expect("a pod");
    nodes.publish("web", &sidestep_tests::two_nodes::web(), &[&server]).expect("manifests");
    for way in ways_in() {
        eventually("the new endpoint answers", || nodes.outside().run(|| ask(way.tcp)).is_ok());
        nodes.outside().run(|| Asker::for_address(way.udp)?.ask(way.udp)).expect("an answer");
    }
}

/// PO-13.
fn other_ports_of_a_cluster_ip_refuse(nodes: &TwoNodes) {
    let server = nodes.backend_here("local").expect("a pod");
    let _agent = serve(nodes, &[&server]);
    for WayIn { kind, tcp, udp } in cluster_ips() {
        let way = WayIn { kind, tcp: (tcp.ip(), 81).into(), udp: (udp.ip(), 54).into() };
        assert_refused(nodes.outside(), way);
    }
}

/// PO-12: if the address is also the node's own, its other ports reach the node's processes.
fn other_ports_of_a_load_balancer_ip_pass(nodes: &TwoNodes) {
    let server = nodes.backend_here("local").expect("a pod");
    let _agent = serve(nodes, &[&server]);
    let _own = TcpServer::start(nodes.node(), "own", 81).expect("a server");
    let lines = "addr add 203.0.113.7/32 dev lo\naddr add 2001:db8:203::7/128 dev lo nodad\n";
    nodes.node().namespace().ip_batch(lines).expect("addresses");
    for way in load_balancer_ips().into_iter().chain(node_ports()) {
        let other = SocketAddr::new(way.tcp.ip(), 81);
        assert_eq!(nodes.outside().run(|| ask(other)).expect("an answer").server, "own");
        assert_eq!(nodes.outside().run(|| ask(way.tcp)).expect("an answer").server, "local");
    }
}

/// PO-1: at most 1,000 refusals in a second, so that a flood does not cause another one.
fn refusals_are_limited(nodes: &TwoNodes) {
    const ASKED: usize = 20_000;
    let _agent = serve(nodes, &[]);
    let [v4, _] = node_ports();
    let before = counter(nodes.outside(), ERRORS).expect("a counter");
    let start = Instant::now();
    nodes.outside().run(|| {
        let socket = UdpSocket::bind(("0.0.0.0", 0)).expect("a socket");
        for _ in 0..ASKED {
            socket.send_to(b"who", v4.udp).expect("sent");
        }
    });
    // The allowance of one second, and of each second begun since.
    std::thread::sleep(Duration::from_millis(50));
    let seconds = start.elapsed().as_secs() + 2;
    let refused = counter(nodes.outside(), ERRORS).expect("a counter") - before;
    assert!(refused > 0 && refused <= 1000 * seconds, "{refused} errors in {:?}", start.elapsed());
    std::thread::sleep(Duration::from_millis(1100));
    assert_refused(nodes.outside(), v4);
}
