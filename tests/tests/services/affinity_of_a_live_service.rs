//! Changes of `sessionAffinity` and of the traffic policy while a Service is in use.

use std::collections::BTreeMap;

use sidestep_tests::{
    cluster,
    cluster::{Cluster, at, service, slice, spread},
    eventually,
    manifest::Service,
    traffic::{Asker, Conversation, ask},
};

const TCP: &str = "10.96.0.20:80";
const UDP: &str = "10.96.0.20:53";
/// An external IP that is added with a change of the policy: it answers once the change is installed.
const SIGN: &str = "198.51.100.20";

fn sticky() -> Service {
    service("sticky", &["10.96.0.20"])
}

/// The servers of this many connections of the client.
fn tcp(cluster: &Cluster, times: usize) -> BTreeMap<String, usize> {
    cluster.client.run(|| spread(times, || ask(at(TCP)).map(|answer| answer.server)))
}

/// The servers of this many UDP sockets of the client.
fn udp(cluster: &Cluster, times: usize) -> BTreeMap<String, usize> {
    cluster.client.run(|| spread(times, || Asker::v4()?.ask(at(UDP)).map(|(answer, _)| answer.server)))
}

/// ST-2: affinity is switched on and off again while a client uses the Service, over TCP and UDP; an established
/// connection is not affected (ST-4).
#[test]
fn affinity_is_switched_on_a_live_service() {
    let cluster = cluster!(3);
    let write = |service: &Service| cluster.lab.manifests().write("sticky.yaml", &[service]);
    write(&sticky()).expect("manifests");
    cluster.endpoints("sticky", &cluster.slice_v4("sticky", 0..3)).expect("manifests");
    let _agent = cluster.lab.agent().expect("an agent");
    assert_eq!(
        (tcp(&cluster, 60).len(), udp(&cluster, 60).len()),
        (3, 3),
        "without affinity all endpoints serve"
    );
    let mut conversation = cluster.client.run(|| Conversation::with(at(TCP))).expect("a connection");
    let before = conversation.ask().expect("an answer");

    for _ in 0..2 {
        write(&sticky().client_ip_affinity(600)).expect("manifests");
        eventually("the client has one endpoint", || {
            (tcp(&cluster, 30).len(), udp(&cluster, 30).len()) == (1, 1)
        });
        write(&sticky()).expect("manifests");
        eventually("all endpoints serve again", || {
            (tcp(&cluster, 60).len(), udp(&cluster, 60).len()) == (3, 3)
        });
    }
    assert_eq!(conversation.ask().expect("an answer"), before);
}

/// ST-3, PO-15: a client keeps its endpoint when the policy widens the set, and gets another one when the policy
/// excludes it.
#[test]
fn affinity_outlives_a_change_of_the_policy() {
    let cluster = cluster!(3);
    let write = |service: &Service| cluster.lab.manifests().write("sticky.yaml", &[service]);
    let [a, b, c] = [0, 1, 2].map(|number: usize| cluster.backends[number].place.v4);
    let local = sticky().client_ip_affinity(600).internal_traffic_local();
    let everywhere = || sticky().client_ip_affinity(600).external_ip([198, 51, 100, 20]);
    let here = |first, others: [_; 2]| {
        slice("sticky").ready(first).on_node("another-node").ready(others[0]).ready(others[1])
    };
    let sign = || cluster.client.run(|| ask(at(&format!("{SIGN}:80")))).is_ok();

    write(&local).expect("manifests");
    cluster.endpoints("sticky", &here(a, [b, c])).expect("manifests");
    let _agent = cluster.lab.agent().expect("an agent");
    assert_eq!(
        tcp(&cluster, 20).into_keys().collect::<Vec<_>>(),
        ["pod-0"],
        "only the local endpoint serves"
    );

    write(&everywhere()).expect("manifests");
    eventually("the policy is Cluster", sign);
    assert_eq!(
        tcp(&cluster, 30).into_keys().collect::<Vec<_>>(),
        ["pod-0"],
        "the client changed its endpoint"
    );

    // Now another endpoint is on this node, and only local ones may serve.
    write(&local).expect("manifests");
    cluster.endpoints("sticky", &here(b, [a, c])).expect("manifests");
    eventually("the client has the local endpoint", || {
        tcp(&cluster, 20).into_keys().collect::<Vec<_>>() == ["pod-1"]
    });
}
