//! External IPs and LoadBalancer IPs, for clients on the node.

use sidestep_tests::{
    cluster,
    cluster::{at, service},
    topology::{NODE_V4, NODE_V6},
    traffic::{Asker, Conversation, TcpServer, ask, connect, is_refused},
};

/// FE-3, FE-5: traffic to these addresses never leaves the node, from pods and from the node itself.
#[test]
fn external_and_load_balancer_ips_are_translated() {
    let cluster = cluster!(2);
    let service = service("web", &["10.96.0.10", "fd00:10:96::10"])
        .external_ip([198, 51, 100, 7])
        .external_ip([0x2001, 0xdb8, 0x198, 0, 0, 0, 0, 7])
        .load_balancer([203, 0, 113, 7], "VIP")
        .load_balancer([0x2001, 0xdb8, 0x203, 0, 0, 0, 0, 7], "VIP");
    cluster.serve("web", &service).expect("manifests");
    let _agent = cluster.lab.agent().expect("an agent");
    for ip in ["198.51.100.7", "203.0.113.7", "[2001:db8:198::7]", "[2001:db8:203::7]"] {
        let (tcp, udp) = (at(&format!("{ip}:80")), at(&format!("{ip}:53")));
        for place in [&cluster.client, cluster.lab.node()] {
            place.run(|| {
                let mut conversation = Conversation::with(tcp).expect("a connection");
                assert!(conversation.ask().expect("an answer").server.starts_with("pod-"));
                assert_eq!(conversation.peer().expect("a peer"), tcp);
                assert_eq!(Asker::for_address(udp).expect("a socket").ask(udp).expect("an answer").1, udp);
            });
        }
    }
}

/// FE-5: with `ipMode: Proxy` traffic goes to the load balancer itself.
#[test]
fn a_load_balancer_that_is_a_proxy_gets_its_traffic() {
    let cluster = cluster!(1);
    // The "load balancer" is a program on the other node.
    let proxy = cluster.lab.other_node();
    let _proxy = TcpServer::start(proxy, "proxy", 80).expect("a server");
    let service = service("web", &["10.96.0.10"]).load_balancer(proxy.v4, "Proxy");
    cluster.serve("web", &service).expect("manifests");
    let _agent = cluster.lab.agent().expect("an agent");
    let answer = cluster.client.run(|| ask((proxy.v4, 80).into())).expect("an answer");
    assert_eq!(answer.server, "proxy");
}

/// PO-20: an external IP is often the node's own address; kubelet and ssh stay reachable there, from everywhere.
#[test]
fn other_ports_of_an_external_ip_that_is_the_nodes_address_stay_reachable() {
    let cluster = cluster!(1);
    let service = service("web", &["10.96.0.10", "fd00:10:96::10"]).external_ip(NODE_V4).external_ip(NODE_V6);
    cluster.serve("web", &service).expect("manifests");
    let _kubelet = TcpServer::start(cluster.lab.node(), "kubelet", 10250).expect("a server");
    let _agent = cluster.lab.agent().expect("an agent");
    for address in cluster.lab.node().addresses() {
        for place in [&cluster.client, cluster.lab.node(), cluster.lab.other_node()] {
            let answer = place.run(|| ask((address, 10250).into())).expect("an answer");
            assert_eq!(answer.server, "kubelet", "from {}", place.name());
        }
        let answer = cluster.client.run(|| ask((address, 80).into())).expect("an answer");
        assert_eq!(answer.server, "pod-0", "the Service's own port");
        // No server listens there: the node itself refuses, not Sidestep.
        assert!(is_refused(&cluster.client.run(|| connect((address, 81).into()))));
    }
}

/// PO-12: the same for a LoadBalancer IP that is another host's address.
#[test]
fn other_ports_of_a_load_balancers_address_pass_through() {
    let cluster = cluster!(1);
    let owner = cluster.lab.other_node();
    let _server = TcpServer::start(owner, "owner", 443).expect("a server");
    let service = service("web", &["10.96.0.10"]).load_balancer(owner.v4, "VIP");
    cluster.serve("web", &service).expect("manifests");
    let _agent = cluster.lab.agent().expect("an agent");
    assert_eq!(cluster.client.run(|| ask((owner.v4, 443).into())).expect("an answer").server, "owner");
    assert_eq!(cluster.client.run(|| ask((owner.v4, 80).into())).expect("an answer").server, "pod-0");
}
