//! The lab of two nodes: its devices carry packets, its rules are in force, and it captures packets.

use std::{net::SocketAddr, path::PathBuf};

use sidestep_tests::{
    Place, TwoNodes, eventually, in_every_variant,
    topology::NODE_V4,
    traffic::{Asker, TcpServer, UdpServer, ask, connect, is_refused},
    two_nodes::{Routing, Rules, Variant},
};

in_every_variant!(
    pods_reach_pods_of_the_other_node,
    outside_reaches_nodes_and_nodes_reach_outside,
    outside_sends_service_addresses_to_the_node,
    rules_are_in_force,
    large_datagrams_pass_between_nodes,
);

/// Asks a TCP and a UDP server and returns the client's addresses that they saw.
fn who_am_i(client: &Place, address: SocketAddr) -> [SocketAddr; 2] {
    client.run(|| {
        let tcp = ask(address).expect("an answer");
        let (udp, source) = Asker::for_address(address).expect("a socket").ask(address).expect("an answer");
        assert_eq!(source, address);
        [tcp.client, udp.client]
    })
}

fn pods_reach_pods_of_the_other_node(nodes: &TwoNodes) {
    let (here, there) = (nodes.pod_here("here").expect("a pod"), nodes.pod_there("there").expect("a pod"));
    for (client, server) in [(&here, &there), (&there, &here), (nodes.node(), &there)] {
        let _tcp = TcpServer::start(server, server.name(), 8080).expect("a server");
        let sources = match (client.name(), nodes.preferred_sources()) {
            ("node", preferred) => preferred,
            _ => client.addresses(),
        };
        for (address, source) in server.addresses().into_iter().zip(sources) {
            let _udp = UdpServer::start_at(server, server.name(), (address, 8080).into()).expect("a server");
            let seen = who_am_i(client, (address, 8080).into());
            assert!(seen.iter().all(|client| client.ip() == source), "{seen:?} instead of {source}");
        }
    }
}

fn outside_reaches_nodes_and_nodes_reach_outside(nodes: &TwoNodes) {
    let outside = nodes.outside();
    for (client, server) in
        [(outside, nodes.node()), (outside, nodes.other_node()), (nodes.other_node(), outside)]
    {
        let _tcp = TcpServer::start(server, server.name(), 8080).expect("a server");
        for (address, source) in server.addresses().into_iter().zip(client.addresses()) {
            let answer = client.run(|| ask((address, 8080).into())).expect("an answer");
            assert_eq!((answer.server.as_str(), answer.client.ip()), (server.name(), source));
        }
    }
}

/// `outside` routes Service addresses to the node. The scenario adds them there: a node has only a route that rejects
/// ClusterIPs.
fn outside_sends_service_addresses_to_the_node(nodes: &TwoNodes) {
    let addresses = ["203.0.113.7", "2001:db8:203::7", "198.51.100.7", "2001:db8:198::7", "10.96.0.10"];
    let _server = TcpServer::start(nodes.node(), "node", 80).expect("a server");
    for address in addresses {
        let prefix = if address.contains(':') { 128 } else { 32 };
        nodes
            .node()
            .namespace()
            .ip_batch(&format!("addr add {address}/{prefix} dev lo\n"))
            .expect("an address");
        let destination = SocketAddr::new(address.parse().expect("an address"), 80);
        assert_eq!(nodes.outside().run(|| ask(destination)).expect("an answer").server, "node");
    }
}

/// A CNI's rules masquerade connections of pods to `outside`, and forward for pods only.
fn rules_are_in_force(nodes: &TwoNodes) {
    let pod = nodes.pod_here("pod").expect("a pod");
    let outside = nodes.outside();
    let with_rules = nodes.variant().rules == Rules::Flannel;
    // `outside` has no route to pods: without masquerading, an answer does not find its way back.
    let routes =
        "route add 10.244.1.0/24 via 192.0.2.10\nroute add fd00:10:244:1::/64 via 2001:db8:192::10\n";
    outside.namespace().ip_batch(routes).expect("routes");
    let _server = TcpServer::start(outside, "outside", 8080).expect("a server");
    for ((address, own), node) in
        outside.addresses().into_iter().zip(pod.addresses()).zip(nodes.node().addresses())
    {
        let seen = pod.run(|| ask((address, 8080).into())).expect("an answer").client.ip();
        assert_eq!(seen, if with_rules { node } else { own });
    }
    // From `outside` through the node to the other node, which would answer.
    let _other = TcpServer::start(nodes.other_node(), "other", 8081).expect("a server");
    let route = format!("route add 192.0.2.11/32 via {NODE_V4}\n");
    outside.namespace().ip_batch(&route).expect("a route");
    let through = outside.run(|| ask((nodes.other_node().v4, 8081).into()));
    assert_eq!(through.is_err(), with_rules, "{through:?}");
}

/// As fragments, which are smaller in the VXLAN.
fn large_datagrams_pass_between_nodes(nodes: &TwoNodes) {
    let (here, there) = (nodes.pod_here("here").expect("a pod"), nodes.pod_there("there").expect("a pod"));
    for address in there.addresses() {
        let any = SocketAddr::new(if address.is_ipv4() { [0; 4].into() } else { [0; 16].into() }, 0);
        let server = there.run(|| std::net::UdpSocket::bind((address, 5000))).expect("a socket");
        server.set_read_timeout(Some(sidestep_tests::traffic::PATIENCE)).expect("an option");
        for length in [1400, 1472, 2000, 8000] {
            here.run(|| {
                std::net::UdpSocket::bind(any).expect("a socket").send_to(&vec![7; length], (address, 5000))
            })
            .expect("sent");
            let mut buffer = [0; 9000];
            assert_eq!(server.recv(&mut buffer).expect("a datagram"), length);
        }
    }
}

#[test]
fn a_port_of_the_node_that_nobody_listens_to_refuses() {
    let nodes = sidestep_tests::two_nodes!(Variant::DIRECT);
    assert!(is_refused(&nodes.outside().run(|| connect((NODE_V4, 1).into()))));
}

/// A failed scenario keeps its packets where its message says, and a successful one leaves nothing.
#[test]
fn a_failed_scenario_leaves_its_packets() {
    let files = |nodes: &TwoNodes| {
        let directory = nodes.lab().run_directory().with_file_name("packets");
        eventually("the file", || directory.join("node.pcap").exists());
        directory
    };
    let kept = || -> Vec<PathBuf> {
        let directory = std::env::temp_dir().join("sidestep-packets");
        let own = format!("-{}", std::process::id());
        let entries = std::fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
        entries.map(|entry| entry.path()).filter(|path| path.to_string_lossy().ends_with(&own)).collect()
    };
    let nodes = sidestep_tests::two_nodes!(Variant::VXLAN);
    assert_eq!(nodes.variant().routing, Routing::Vxlan);
    let directory = files(&nodes);
    drop(nodes);
    assert!(!directory.exists() && kept().is_empty());

    let failing = std::thread::Builder::new().name("failing".to_owned()).spawn(|| {
        let nodes = TwoNodes::new(Variant::VXLAN).expect("a lab");
        let (here, there) =
            (nodes.pod_here("here").expect("a pod"), nodes.pod_there("there").expect("a pod"));
        here.run(|| connect((there.v4, 4567).into()))
            .expect("connect fails, and so does the scenario, as intended");
    });
    failing.expect("a thread").join().expect_err("it fails");
    let [kept] = kept().try_into().expect("one directory");
    for (file, at_least) in [("node-vxlan.pcap", 2), ("node.pcap", 2), ("other.pcap", 2), ("outside.pcap", 0)]
    {
        let file = std::fs::File::open(kept.join(file)).expect("a file");
        let mut reader = pcap_file::pcap::PcapReader::new(file).expect("a header");
        let mut packets = 0;
        while let Some(packet) = reader.next_packet() {
            packet.expect("a packet");
            packets += 1;
        }
        assert!(packets >= at_least, "{packets} packets");
    }
    std::fs::remove_dir_all(kept).expect("removed");
}
