//! At which of the node's addresses a NodePort serves north-south clients; never at loopback.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use sidestep_tests::{
    Agent, TwoNodes,
    frames::FrameSender,
    in_every_variant,
    traffic::{ask, connect, is_refused},
    two_nodes::{DNS_NODE_PORT, HTTP_NODE_PORT, node_ports, web},
};

in_every_variant!(
    node_ports_answer_at_the_addresses_that_the_configuration_names,
    packets_from_a_device_to_loopback_are_not_translated,
);

/// Addresses of the node beside the Node's internal ones, one of each family.
const OTHERS: [&str; 2] = ["192.0.2.55", "2001:db8:192::55"];

/// An agent with this line in its configuration.
fn configured(nodes: &TwoNodes, line: &str) -> Agent {
    let file = nodes.lab().run_directory().join("kube-proxy.conf");
    let text =
        format!("apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n{line}\n");
    std::fs::write(&file, text).expect("written");
    Agent::reading(nodes.lab()).arguments(["--config".into(), file]).started(nodes.lab()).expect("an agent")
}

/// PO-10, CF-8: a NodePort answers at the Node's addresses, at those within configured ranges, or at all. At others the
/// node itself refuses.
fn node_ports_answer_at_the_addresses_that_the_configuration_names(nodes: &TwoNodes) {
    let server = nodes.backend_there("there").expect("a pod");
    nodes.publish("web", &web(), &[&server]).expect("manifests");
    let [v4, v6] = OTHERS;
    let lines = format!("addr add {v4}/24 dev uplink\naddr add {v6}/64 dev uplink nodad\n");
    nodes.node().namespace().ip_batch(&lines).expect("addresses");
    for (line, at_the_nodes, at_others) in [
        ("mode: nftables", true, false),
        ("nodePortAddresses: [192.0.2.55/32, '2001:db8:192::55/128']", false, true),
        ("nodePortAddresses: [192.0.2.0/24, '2001:db8:192::/64']", true, true),
        ("nodePortAddresses: [all]", true, true),
    ] {
        let _agent = configured(nodes, line);
        let others = OTHERS.map(|other| SocketAddr::new(other.parse().expect("an address"), HTTP_NODE_PORT));
        let addresses = node_ports().map(|way| (way.tcp, at_the_nodes));
        for (address, served) in addresses.into_iter().chain(others.map(|other| (other, at_others))) {
            let connected = nodes.outside().run(|| connect(address));
            assert_eq!(connected.is_ok(), served, "{line}: {address}: {connected:?}");
            assert!(served || is_refused(&connected), "{line}: {address}: {connected:?}");
        }
    }
}

/// PO-11: a packet to loopback that arrives at a device is not translated, and the kernel drops it.
fn packets_from_a_device_to_loopback_are_not_translated(nodes: &TwoNodes) {
    let server = nodes.backend_here("here").expect("a pod");
    nodes.publish("web", &web(), &[&server]).expect("manifests");
    let _agent = configured(nodes, "nodePortAddresses: [all]");
    let mut frames = FrameSender::new(nodes).expect("a packet socket");
    let outside = nodes.outside().addresses();
    let mut send = |destination: IpAddr, number: u32| {
        let source = outside[usize::from(destination.is_ipv6())];
        let port = 40_000 + u16::try_from(number).expect("a port");
        frames.syn((source, port).into(), (destination, HTTP_NODE_PORT).into(), number).expect("sent");
        frames.datagram((source, port).into(), (destination, DNS_NODE_PORT).into(), b"who").expect("sent");
    };
    for (number, address) in (0..).zip(["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"]) {
        let address: IpAddr = address.parse().expect("an address");
        send(address, number);
    }
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!((server.tcp.connections(), server.udp.requests()), (0, 0));
    // The same frames to the node's own addresses are served, so the frames are valid.
    for (number, way) in (10..).zip(node_ports()) {
        send(way.udp.ip(), number);
    }
    sidestep_tests::eventually("the server gets the frames to the node's addresses", || {
        server.udp.requests() == 2
    });
    nodes.outside().run(|| ask(node_ports()[0].tcp)).expect("an answer");
}
