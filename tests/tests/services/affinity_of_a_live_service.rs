//! `sessionAffinity` and the traffic policy change on a Service that is in use.

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
/// An external IP that comes with a change of the policy, and so tells that the change is there.
const SIGN: &str = "198.51.100.20";

fn sticky() -> Service {
    service("sticky", &["10.96.0.20"])
}

/// Who answers this many connections of the client.
fn tcp(cluster: &Cluster, times: usize) -> BTreeMap<String, usize> {
    cluster.client.run(|| spread(times, || ask(at(TCP)).map(|answer| answer.server)))
}

/// Who answers this many sockets of the client.
fn udp(cluster: &Cluster, times: usize) -> BTreeMap<String, usize> {
    cluster.client.run(|| spread(times, || Asker::v4()?.ask(at(UDP)).map(|(answer, _)| answer.server)))
}

/// ST-2: affinity is switched on, off and on again under a client, for TCP and UDP; a connection that is there
/// does not notice (ST-4).
#[test]
fn affinity_is_switched_on_a_live_service() {
    let cluster = cluster!(3);
    let write = |service: &Service| cluster.lab.manifests().write("sticky.yaml", &[service]);
    write(&sticky()).expect("manifests");
    cluster.endpoints("sticky", &cluster.slice_v4("sticky", 0..3)).expect("manifests");
    let _agent = cluster.lab.agent().expect("an agent");
    assert_eq!((tcp(&cluster, 60).len(), udp(&cluster, 60).len()), (3, 3), "no affinity: all of them");
    let mut conversation = cluster.client.run(|| Conversation::with(at(TCP))).expect("a connection");
    let before = conversation.ask().expect("an answer");

    for _ in 0..2 {
        write(&sticky().client_ip_affinity(600)).expect("manifests");
        eventually("one endpoint for the client", || {
            (tcp(&cluster, 30).len(), udp(&cluster, 30).len()) == (1, 1)
        });
        write(&sticky()).expect("manifests");
        eventually("all of them again", || (tcp(&cluster, 60).len(), udp(&cluster, 60).len()) == (3, 3));
    }
    assert_eq!(conversation.ask().expect("an answer"), before);
}

/// ST-3, PO-15: a client keeps its endpoint when the policy widens the set, and gets another one when the policy
/// takes it out.
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
    assert_eq!(tcp(&cluster, 20).into_keys().collect::<Vec<_>>(), ["pod-0"], "the only one on this node");

    write(&everywhere()).expect("manifests");
    eventually("the policy is Cluster", sign);
    assert_eq!(tcp(&cluster, 30).into_keys().collect::<Vec<_>>(), ["pod-0"], "nobody moves for that");

    // Now another one is on this node, and only those may be used.
    write(&local).expect("manifests");
    cluster.endpoints("sticky", &here(b, [a, c])).expect("manifests");
    eventually("the client moved to this node's", || {
        tcp(&cluster, 20).into_keys().collect::<Vec<_>>() == ["pod-1"]
    });
}
