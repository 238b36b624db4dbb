//! kube-proxy's rules and conntrack entries are there when the agent starts: what began with them stays theirs.

use std::net::SocketAddr;

use sidestep_tests::{
    TwoNodes,
    cluster::{DNS, DNS_PORT, HTTP, HTTP_PORT},
    in_every_variant,
    kube_proxy::{Flavour, Proxied, load},
    manifest::Protocol,
    traffic::{Asker, Conversation},
    two_nodes::{DNS_NODE_PORT, HTTP_NODE_PORT, cluster_ips, web},
};

use crate::{agent, assert_served, client};

in_every_variant!(what_began_with_kube_proxy_goes_on);

/// ST-11: kube-proxy's endpoint is another one than Sidestep's, so an answer tells who has translated.
fn what_began_with_kube_proxy_goes_on(nodes: &TwoNodes) {
    let (theirs, ours) =
        (nodes.backend_there("theirs").expect("a pod"), nodes.backend_there("ours").expect("a pod"));
    let client = client(nodes, "client");
    let proxied = |family: usize| {
        let (ip, way) = (theirs.place.addresses()[family], cluster_ips()[family]);
        let port = |port, protocol, node_port, at, target| Proxied {
            service: "web".to_owned(),
            port,
            protocol,
            node_port,
            at: vec![at],
            endpoint: SocketAddr::new(ip, target),
        };
        [
            port(HTTP, Protocol::Tcp, HTTP_NODE_PORT, way.tcp, HTTP_PORT),
            port(DNS, Protocol::Udp, DNS_NODE_PORT, way.udp, DNS_PORT),
        ]
    };
    let rules = [proxied(0), proxied(1)].concat();
    load(nodes.node(), Flavour::Nftables, &rules).expect("rules");
    nodes.publish("web", &web(), &[&ours]).expect("manifests");
    let mut begun = cluster_ips().map(|way| {
        client.run(|| {
            let (mut talk, asker) =
                (Conversation::with(way.tcp).expect("TCP"), Asker::for_address(way.udp).expect("UDP"));
            assert_eq!(talk.ask().expect("an answer").server, "theirs");
            assert_eq!(asker.ask(way.udp).expect("an answer").0.server, "theirs");
            (way, talk, asker)
        })
    });
    let _agent = agent(nodes);
    for _ in 0..3 {
        for (way, talk, asker) in &mut begun {
            assert_eq!(talk.ask().expect("it goes on").server, "theirs", "{way:?}");
            let answer = client.run(|| asker.ask(way.udp)).expect("it goes on");
            assert_eq!((answer.0.server.as_str(), answer.1), ("theirs", way.udp));
        }
    }
    for (way, ..) in begun {
        assert_served(&client, way, "ours", |ip| client.addresses().contains(&ip));
    }
}
