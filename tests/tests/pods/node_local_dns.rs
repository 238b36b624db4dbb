//! Node-local DNS: a cache of DNS on the node that has the address of the cluster's DNS Service, or one of its own
//! (`docs/node-local-dns.md`).

use std::net::{IpAddr, SocketAddr};

use sidestep_tests::{
    Place, TwoNodes, eventually, in_both_extremes,
    traffic::{Asker, TcpServer, UdpServer, ask},
    two_nodes::{WayIn, cluster_ips},
};

use crate::{assert_served, by_packets, client, serve};

in_both_extremes!(a_cache_with_the_services_address_answers, a_cache_with_an_address_of_its_own_answers);

/// The addresses of a cache, on a device of the node: upstream makes a dummy, which not every kernel has.
fn bind(nodes: &TwoNodes, addresses: [IpAddr; 2]) {
    let [v4, v6] = addresses;
    let device = format!(
        "link add nodelocaldns type bridge\naddr add {v4}/32 dev nodelocaldns\naddr add {v6}/128 dev nodelocaldns nodad\nlink \
         set nodelocaldns up\n"
    );
    nodes.node().namespace().ip_batch(&device).expect("a device");
}

/// A cache at these addresses of the node.
fn cache(node: &Place, ways: &[WayIn]) -> Vec<(TcpServer, UdpServer)> {
    let start = |way: &WayIn| {
        let tcp = TcpServer::start_at(node, "cache", way.tcp).expect("a server");
        (tcp, UdpServer::start_at(node, "cache", way.udp).expect("a server"))
    };
    ways.iter().map(start).collect()
}

/// PO-18: of pods, whether their sockets or their packets ask, and of the node. When the cache goes, the endpoints answer.
fn a_cache_with_the_services_address_answers(nodes: &TwoNodes) {
    let server = nodes.backend_there("dns").expect("a pod");
    let (hooked, by_packet) = (nodes.pod_here("hooked").expect("a pod"), client(nodes, "by-packet"));
    // What no hook translates has a way to the node.
    let _ = by_packets(nodes, &hooked);
    bind(nodes, cluster_ips().map(|way| way.tcp.ip()));
    let caches = cache(nodes.node(), &cluster_ips());
    let agent = serve(nodes, &[&server]);
    let clients = [&hooked, &by_packet, nodes.node()];
    for way in cluster_ips() {
        for client in clients {
            assert_served(client, way, "cache", |_| true);
        }
    }
    let problems = agent.report().expect("a report").problems;
    let said = |way: &WayIn| {
        let address = way.tcp.ip().to_string();
        problems.iter().any(|problem| problem.message.contains(&address))
    };
    assert!(cluster_ips().iter().all(said), "{problems:?}");
    drop(caches);
    nodes.node().namespace().ip_batch("link del nodelocaldns\n").expect("it goes");
    for way in cluster_ips() {
        for client in clients {
            let is_dns = || client.run(|| ask(way.tcp)).is_ok_and(|answer| answer.server == "dns");
            eventually("the endpoint answers", is_dns);
            let datagram = client.run(|| Asker::for_address(way.udp)?.ask(way.udp)).expect("an answer");
            assert_eq!(datagram.0.server, "dns");
        }
    }
}

/// The address is nobody's but the cache's; what the cache asks itself reaches the Service's endpoints.
fn a_cache_with_an_address_of_its_own_answers(nodes: &TwoNodes) {
    let server = nodes.backend_there("dns").expect("a pod");
    let (hooked, by_packet) = (nodes.pod_here("hooked").expect("a pod"), client(nodes, "by-packet"));
    let _ = by_packets(nodes, &hooked);
    let addresses: [IpAddr; 2] =
        ["169.254.20.10", "fd00:10:20::10"].map(|address| address.parse().expect("an address"));
    bind(nodes, addresses);
    let ways = addresses.map(|address| WayIn {
        kind: "the cache's address",
        tcp: SocketAddr::new(address, 80),
        udp: SocketAddr::new(address, 53),
    });
    let _caches = cache(nodes.node(), &ways);
    let _agent = serve(nodes, &[&server]);
    for way in ways {
        for client in [&hooked, &by_packet, nodes.node()] {
            assert_served(client, way, "cache", |_| true);
        }
    }
    for way in cluster_ips() {
        assert_served(nodes.node(), way, "dns", |_| true);
    }
}
