//! Policies choose for a pod's packets what they choose for its sockets: it is a client inside.

use std::{collections::BTreeSet, time::Duration};

use sidestep_tests::{
    TwoNodes,
    cluster::spread,
    eventually, in_every_variant,
    traffic::{Asker, Conversation, ask, connect},
    two_nodes::{cluster_ips, load_balancer_ips, web},
};

use crate::{agent, client};

in_every_variant!(
    affinity_keeps_a_pod_at_its_endpoint,
    an_internal_policy_of_local_holds_for_packets,
    an_external_policy_of_local_does_not_hold_inside,
    source_ranges_admit_pods_by_their_address,
    a_session_goes_on_when_its_endpoint_is_gone_and_datagrams_move,
);

/// How often to ask where one endpoint would be chosen by chance once in a million runs.
const OFTEN: usize = 20;

fn affinity_keeps_a_pod_at_its_endpoint(nodes: &TwoNodes) {
    let servers = [nodes.backend_here("here").expect("a pod"), nodes.backend_there("there").expect("a pod")];
    nodes.publish("web", &web().client_ip_affinity(100), &servers.each_ref()).expect("manifests");
    let client = client(nodes, "client");
    let _agent = agent(nodes);
    for way in cluster_ips() {
        let answers = client.run(|| spread(OFTEN, || ask(way.tcp).map(|answer| answer.server)));
        assert_eq!(answers.len(), 1, "{way:?}: {answers:?}");
    }
}

fn an_internal_policy_of_local_holds_for_packets(nodes: &TwoNodes) {
    let servers = [nodes.backend_here("here").expect("a pod"), nodes.backend_there("there").expect("a pod")];
    nodes.publish("web", &web().internal_traffic_local(), &servers.each_ref()).expect("manifests");
    let client = client(nodes, "client");
    let _agent = agent(nodes);
    for way in cluster_ips() {
        let answers = client.run(|| spread(OFTEN, || ask(way.tcp).map(|answer| answer.server)));
        assert_eq!(answers.into_keys().collect::<Vec<_>>(), ["here"], "{way:?}");
    }
}

/// PO-8: to a pod, a LoadBalancer IP has the endpoints of the whole cluster.
fn an_external_policy_of_local_does_not_hold_inside(nodes: &TwoNodes) {
    let server = nodes.backend_there("there").expect("a pod");
    nodes.publish("web", &web().external_traffic_local(), &[&server]).expect("manifests");
    let client = client(nodes, "client");
    let _agent = agent(nodes);
    for way in load_balancer_ips() {
        let answer = client.run(|| ask(way.tcp)).unwrap_or_else(|error| panic!("{way:?}: {error}"));
        assert_eq!(answer.server, "there");
    }
}

fn source_ranges_admit_pods_by_their_address(nodes: &TwoNodes) {
    let server = nodes.backend_here("here").expect("a pod");
    let [admitted, other] = ["admitted", "stranger"].map(|name| client(nodes, name));
    let ranges = admitted.addresses().map(|ip| format!("{ip}/{}", if ip.is_ipv4() { 32 } else { 128 }));
    let service = web().source_ranges(&ranges.each_ref().map(String::as_str));
    nodes.publish("web", &service, &[&server]).expect("manifests");
    let _agent = agent(nodes);
    for way in load_balancer_ips() {
        admitted.run(|| ask(way.tcp)).unwrap_or_else(|error| panic!("{way:?}: {error}"));
        let dropped = other.run(|| {
            let asker = Asker::for_address(way.udp)?;
            asker.socket().set_read_timeout(Some(Duration::from_millis(300)))?;
            asker.ask(way.udp)
        });
        assert!(dropped.is_err(), "{way:?}: {dropped:?}");
    }
    for way in cluster_ips() {
        other.run(|| ask(way.tcp)).unwrap_or_else(|error| panic!("{way:?}: {error}"));
    }
}

/// ST-4, ST-5.
fn a_session_goes_on_when_its_endpoint_is_gone_and_datagrams_move(nodes: &TwoNodes) {
    let servers = [nodes.backend_here("here").expect("a pod"), nodes.backend_there("there").expect("a pod")];
    for (gone, stays) in [(0, 1), (1, 0)] {
        nodes.publish("web", &web(), &[&servers[gone]]).expect("manifests");
        let client = client(nodes, &format!("client-{gone}"));
        let _agent = agent(nodes);
        let [v4, v6] = cluster_ips();
        let begin = |way: sidestep_tests::two_nodes::WayIn| {
            client.run(|| {
                let mut talk = Conversation::over(connect(way.tcp)?)?;
                let asker = Asker::for_address(way.udp)?;
                let names = BTreeSet::from([talk.ask()?.server, asker.ask(way.udp)?.0.server]);
                Ok::<_, std::io::Error>((talk, asker, names))
            })
        };
        let mut begun =
            [v4, v6].map(|way| (way, begin(way).unwrap_or_else(|error| panic!("{way:?}: {error}"))));
        let name = |number: usize| servers[number].place.name().to_owned();
        assert!(begun.iter().all(|(_, (.., names))| *names == BTreeSet::from([name(gone)])), "{begun:?}");
        nodes.publish("web", &web(), &[&servers[stays]]).expect("manifests");
        for (way, (talk, asker, _)) in &mut begun {
            eventually("datagrams move", || {
                asker.ask(way.udp).is_ok_and(|(one, _)| one.server == name(stays))
            });
            assert_eq!(talk.ask().map(|answer| answer.server).ok(), Some(name(gone)), "{way:?}");
            // A Service's ports change one after the other.
            eventually("new connections follow", || {
                client.run(|| ask(way.tcp)).is_ok_and(|new| new.server == name(stays))
            });
        }
    }
}
