//! NodePorts for clients on the node: at this node's own addresses, and not at other nodes'.

use sidestep_tests::{
    Agent, cluster as new_cluster,
    cluster::{self, Cluster, DNS, HTTP, at},
    eventually,
    manifest::{Protocol, Service},
    topology::{GATEWAY_V4, NODE_V4},
    traffic::{Asker, Conversation, TcpServer, ask, connect, is_refused},
};

fn start(cluster: &Cluster) -> Agent {
    let service = Service::new("web", &["10.96.0.10", "fd00:10:96::10"])
        .port(HTTP, Protocol::Tcp, 80)
        .node_port(30080)
        .port(DNS, Protocol::Udp, 53)
        .node_port(30053);
    cluster.serve("web", &service).expect("manifests");
    cluster.lab.agent().expect("an agent")
}

/// FE-4, PO-10: pods and the node's own processes reach a NodePort at the node's addresses.
#[test]
fn a_node_port_answers_at_this_nodes_addresses() {
    let cluster = new_cluster!(2);
    let _agent = start(&cluster);
    for address in cluster.lab.node().addresses() {
        for place in [&cluster.client, cluster.lab.node()] {
            place.run(|| {
                let tcp = (address, 30080).into();
                let mut conversation = Conversation::with(tcp).expect("a connection");
                assert!(conversation.ask().expect("an answer").server.starts_with("pod-"));
                assert_eq!(conversation.peer().expect("a peer"), tcp);
                let udp = (address, 30053).into();
                let (answer, source) =
                    Asker::for_address(udp).expect("a socket").ask(udp).expect("an answer");
                assert!(answer.server.starts_with("pod-"));
                assert_eq!(source, udp);
            });
        }
    }
    // PO-10: not at addresses that the Node does not list; nor is the number a NodePort in the other protocol.
    assert!(is_refused(&cluster.client.run(|| connect((GATEWAY_V4, 30080).into()))));
    assert!(is_refused(&cluster.client.run(|| connect((NODE_V4, 30053).into()))));
}

/// PO-9: the other node answers for itself, by its own endpoints and policy.
#[test]
fn a_node_port_at_another_nodes_address_is_left_alone() {
    let cluster = new_cluster!(2);
    let _agent = start(&cluster);
    let _other = TcpServer::start(cluster.lab.other_node(), "other-node", 30080).expect("a server");
    for address in cluster.lab.other_node().addresses() {
        for place in [&cluster.client, cluster.lab.node()] {
            let answer = place.run(|| ask((address, 30080).into())).expect("an answer");
            assert_eq!(answer.server, "other-node");
        }
    }
}

/// PO-11: the node's processes reach NodePorts at loopback, without `route_localnet`.
#[test]
fn a_node_port_answers_at_the_nodes_loopback() {
    let cluster = new_cluster!(2);
    let _agent = start(&cluster);
    cluster.lab.node().run(|| {
        for address in
            [at("127.0.0.1:30080"), at("[::1]:30080"), at("[::ffff:127.0.0.1]:30080"), at("127.8.8.8:30080")]
        {
            let mut conversation = Conversation::with(address).expect("a connection");
            assert!(conversation.ask().expect("an answer").server.starts_with("pod-"), "{address}");
            assert_eq!(conversation.peer().expect("a peer"), address);
        }
        let udp = at("127.0.0.1:30053");
        assert_eq!(Asker::v4().expect("a socket").ask(udp).expect("an answer").1, udp);
    });
}

/// PO-11, CF-8, CF-11: NodePorts answer at loopback only if the configuration includes it.
#[test]
fn a_node_port_is_silent_at_loopback_where_the_configuration_says_so() {
    let cluster = new_cluster!(2);
    let mut agent = start(&cluster);
    agent.stop().expect("it ends");
    let file = cluster.lab.run_directory().join("kube-proxy.conf");
    let places = [at("127.0.0.1:30080"), at("127.8.8.8:30080"), at("[::1]:30080")];
    for (fields, answers) in [
        ("iptables: {localhostNodePorts: false}", [false, false, false]),
        ("nodePortAddresses: [primary]", [false, false, false]),
        ("nodePortAddresses: [primary, localhost]", [true, true, true]),
        ("nodePortAddresses: [192.0.2.0/24, '::1/128']", [false, false, true]),
        ("mode: iptables", [true, true, true]),
    ] {
        let text =
            format!("apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n{fields}\n");
        std::fs::write(&file, text).expect("written");
        let arguments = ["--config".into(), file.clone()];
        let configured = Agent::reading(&cluster.lab).arguments(arguments).started(&cluster.lab);
        let mut agent = configured.expect("an agent");
        for (place, expected) in places.into_iter().zip(answers) {
            let found = cluster.lab.node().run(|| connect(place));
            assert_eq!(found.is_ok(), expected, "{fields}: {place}: {found:?}");
        }
        assert!(cluster.client.run(|| connect((NODE_V4, 30080).into())).is_ok(), "{fields}");
        agent.stop().expect("it ends");
    }
}

/// PO-21: NodePorts do not answer at a pod's loopback.
#[test]
fn a_pods_loopback_is_its_own() {
    let cluster = new_cluster!(2);
    let _agent = start(&cluster);
    for address in [at("127.0.0.1:30080"), at("[::1]:30080")] {
        assert!(is_refused(&cluster.client.run(|| connect(address))), "{address}");
    }
    let _own = TcpServer::start(&cluster.client, "own", 30080).expect("a server");
    for address in [at("127.0.0.1:30080"), at("[::1]:30080")] {
        assert_eq!(cluster.client.run(|| ask(address)).expect("an answer").server, "own");
    }
}

/// The "any" address as a destination means loopback, and does not match the NodePort's entry in FRONTENDS.
#[test]
fn connecting_to_the_any_address_meets_no_node_port_in_a_pod() {
    let cluster = new_cluster!(2);
    let _agent = start(&cluster);
    for address in [at("0.0.0.0:30080"), at("[::]:30080")] {
        assert!(is_refused(&cluster.client.run(|| connect(address))), "{address}");
    }
}

/// A deleted NodePort closes at once, and Sidestep never touches other ports of the node.
#[test]
fn other_ports_of_the_node_are_left_alone() {
    let cluster = new_cluster!(1);
    let _agent = start(&cluster);
    let _kubelet = TcpServer::start(cluster.lab.node(), "kubelet", 10250).expect("a server");
    for address in cluster.lab.node().addresses() {
        assert_eq!(cluster.client.run(|| ask((address, 10250).into())).expect("an answer").server, "kubelet");
    }
    cluster.serve("web", &cluster::service("web", &["10.96.0.10"])).expect("manifests");
    eventually("the NodePort is gone", || {
        is_refused(&cluster.client.run(|| connect((NODE_V4, 30080).into())))
    });
}
