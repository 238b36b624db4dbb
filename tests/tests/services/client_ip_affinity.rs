//! `sessionAffinity: ClientIP`: a client keeps its endpoint until the timeout.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use sidestep_tests::{
    cluster,
    cluster::{at, service, slice, spread},
    eventually,
    manifest::Conditions,
    place::Place,
    traffic::{Asker, ask},
};

const VIP: &str = "10.96.0.20:80";

fn who(place: &Place) -> String {
    place.run(|| ask(at(VIP))).expect("an answer").server
}

/// ST-2: every connection of a pod goes to the same endpoint, separately for TCP and UDP.
#[test]
fn a_client_stays_with_its_endpoint() {
    let cluster = cluster!(3);
    let sticky = service("sticky", &["10.96.0.20", "fd00:10:96::20"]).client_ip_affinity(600);
    cluster.serve("sticky", &sticky).expect("manifests");
    let _agent = cluster.lab.agent().expect("an agent");
    cluster.client.run(|| {
        for vip in [at(VIP), at("[fd00:10:96::20]:80")] {
            let answers = spread(40, || ask(vip).map(|answer| answer.server));
            assert_eq!(answers.len(), 1, "{answers:?}");
        }
        let vip = at("10.96.0.20:53");
        let answers = spread(40, || Asker::v4()?.ask(vip).map(|(answer, _)| answer.server));
        assert_eq!(answers.len(), 1, "the client's sockets reached several endpoints: {answers:?}");
    });
}

/// ST-9: a client is a network namespace.
#[test]
fn each_pod_has_its_own_endpoint() {
    let cluster = cluster!(4);
    let sticky = service("sticky", &["10.96.0.20"]).client_ip_affinity(1);
    cluster.serve("sticky", &sticky).expect("manifests");
    let _agent = cluster.lab.agent().expect("an agent");
    eventually("two clients have different endpoints", || {
        let different = who(&cluster.client) != who(cluster.lab.node());
        if !different {
            sleep(Duration::from_millis(1100)); // the affinity of both expires
        }
        different
    });
}

/// ST-2: the time runs from the last new connection.
#[test]
fn affinity_ends_when_a_client_stays_away() {
    let cluster = cluster!(4);
    let sticky = service("sticky", &["10.96.0.20"]).client_ip_affinity(2);
    cluster.serve("sticky", &sticky).expect("manifests");
    let _agent = cluster.lab.agent().expect("an agent");

    let first = who(&cluster.client);
    let mut last = Instant::now();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(4) {
        sleep(Duration::from_millis(200));
        let again = who(&cluster.client);
        // Inconclusive if the machine was too busy to connect in time.
        assert!(again == first || last.elapsed() > Duration::from_millis(1900), "{again} after {first}");
        last = Instant::now();
    }
    let mut rounds = 0;
    while who(&cluster.client) == first {
        rounds += 1;
        assert!(rounds < 12, "the client still has {first}");
        sleep(Duration::from_millis(2100));
    }
}

/// ST-2, PO-15: an endpoint that may get no new connections loses its clients; clients of others stay.
#[test]
fn a_client_moves_on_when_its_endpoint_leaves() {
    let cluster = cluster!(3);
    let sticky = service("sticky", &["10.96.0.20"]).client_ip_affinity(600);
    cluster.lab.manifests().write("sticky.yaml", &[&sticky]).expect("manifests");
    cluster.endpoints("sticky", &cluster.slice_v4("sticky", 0..3)).expect("manifests");
    let _agent = cluster.lab.agent().expect("an agent");

    let first = who(&cluster.client);
    let slice = cluster.backends.iter().fold(slice("sticky"), |slice, backend| {
        let leaves = backend.place.name() == first;
        slice.endpoint(backend.place.v4, if leaves { Conditions::DRAINING } else { Conditions::READY })
    });
    cluster.endpoints("sticky", &slice).expect("manifests");
    eventually("the client has another endpoint", || who(&cluster.client) != first);
    let second = who(&cluster.client);

    // The first endpoint comes back, and the client stays where it is.
    cluster.endpoints("sticky", &cluster.slice_v4("sticky", 0..3)).expect("manifests");
    sleep(Duration::from_millis(300));
    let answers = cluster.client.run(|| spread(20, || ask(at(VIP)).map(|answer| answer.server)));
    assert_eq!(answers.keys().collect::<Vec<_>>(), [&second]);
}
