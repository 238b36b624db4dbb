//! Which endpoints a client gets, by readiness, termination and `internalTrafficPolicy`.

use std::net::Ipv4Addr;

use sidestep_tests::{
    cluster,
    cluster::{at, service, slice, spread},
    eventually,
    manifest::Conditions,
    traffic::{Asker, ask, connect, is_refused},
};

/// EP-5, EP-9: with `internalTrafficPolicy: Local` only local endpoints serve.
#[test]
fn internal_traffic_that_is_local_stays_on_the_node() {
    let cluster = cluster!(3);
    let service = service("web", &["10.96.0.10"]).internal_traffic_local();
    cluster.lab.manifests().write("web.yaml", &[&service]).expect("manifests");
    let [a, b, c] = [0, 1, 2].map(|number: usize| cluster.backends[number].place.v4);
    let spread_out = slice("web").ready(a).ready(b).on_node("another-node").ready(c);
    cluster.endpoints("web", &spread_out).expect("manifests");
    let _agent = cluster.lab.agent().expect("an agent");
    let answers = cluster.client.run(|| spread(40, || ask(at("10.96.0.10:80")).map(|answer| answer.server)));
    assert_eq!(answers.keys().collect::<Vec<_>>(), ["pod-0", "pod-1"]);

    // PO-19: without a local endpoint, connections are refused at once.
    cluster.endpoints("web", &slice("web").on_node("another-node").ready(c)).expect("manifests");
    cluster.client.run(|| {
        eventually("TCP is refused", || is_refused(&connect(at("10.96.0.10:80"))));
        assert!(is_refused(&Asker::v4().expect("a socket").ask(at("10.96.0.10:53"))));
    });
}

/// EP-8: a terminating endpoint serves only if no other endpoint does.
#[test]
fn a_terminating_endpoint_serves_when_nobody_else_does() {
    let cluster = cluster!(2);
    cluster.lab.manifests().write("web.yaml", &[&service("web", &["10.96.0.10"])]).expect("manifests");
    let [a, b] = [0, 1].map(|number: usize| cluster.backends[number].place.v4);
    let both = slice("web").endpoint(a, Conditions::DRAINING).ready(b);
    cluster.endpoints("web", &both).expect("manifests");
    let _agent = cluster.lab.agent().expect("an agent");
    let who = || cluster.client.run(|| ask(at("10.96.0.10:80")).map(|answer| answer.server));
    assert_eq!(spread(30, who).keys().collect::<Vec<_>>(), ["pod-1"]);

    let draining = slice("web").endpoint(a, Conditions::DRAINING).endpoint(b, Conditions::GONE);
    cluster.endpoints("web", &draining).expect("manifests");
    eventually("the terminating endpoint serves", || who().expect("an answer") == "pod-0");
    assert_eq!(spread(30, who).keys().collect::<Vec<_>>(), ["pod-0"]);
}

/// EP-4, EP-6: an endpoint that is not ready gets no connections, and a duplicate endpoint counts once.
#[test]
fn endpoints_that_are_not_ready_get_nothing() {
    let cluster = cluster!(1);
    cluster.lab.manifests().write("web.yaml", &[&service("web", &["10.96.0.10"])]).expect("manifests");
    let unready = Conditions { ready: false, serving: false, terminating: false };
    let own = cluster.backends[0].place.v4;
    let slice = slice("web").ready(own).ready(own).endpoint(Ipv4Addr::new(10, 244, 1, 250), unready);
    cluster.endpoints("web", &slice).expect("manifests");
    let _agent = cluster.lab.agent().expect("an agent");
    let answers = cluster.client.run(|| spread(30, || ask(at("10.96.0.10:80")).map(|answer| answer.server)));
    assert_eq!(answers.keys().collect::<Vec<_>>(), ["pod-0"]);
}
