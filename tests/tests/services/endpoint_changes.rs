//! The agent installs changes within milliseconds, and no request fails meanwhile.

use std::time::Duration;

use sidestep_tests::{
    cluster,
    cluster::{at, service, slice, spread},
    eventually,
    manifest::Conditions,
    pressure::Pressure,
    traffic::{ask, connect, is_refused},
};

/// A rolling update: each endpoint drains, is removed and comes back, and no request fails.
#[test]
fn a_rolling_update_fails_no_request() {
    let cluster = cluster!(3);
    cluster.lab.manifests().write("web.yaml", &[&service("web", &["10.96.0.10"])]).expect("manifests");
    cluster.endpoints("web", &cluster.slice_v4("web", 0..3)).expect("manifests");
    let _agent = cluster.lab.agent().expect("an agent");
    let pressure = Pressure::start(&cluster.client, at("10.96.0.10:80"), at("10.96.0.10:53"));
    for (leaving, conditions) in (0..3).flat_map(|pod| [(pod, Conditions::DRAINING), (pod, Conditions::GONE)])
    {
        let slice = cluster.backends.iter().enumerate().fold(slice("web"), |slice, (number, backend)| {
            let conditions = if number == leaving { conditions } else { Conditions::READY };
            slice.endpoint(backend.place.v4, conditions)
        });
        cluster.endpoints("web", &slice).expect("manifests");
        let leaver = &cluster.backends[leaving].tcp;
        eventually("the endpoint gets no new connection", || {
            let before = leaver.connections();
            pressure.let_pass(30);
            leaver.connections() == before
        });
    }
    cluster.endpoints("web", &cluster.slice_v4("web", 0..3)).expect("manifests");
    eventually("all three serve", || {
        cluster.client.run(|| spread(30, || ask(at("10.96.0.10:80")).map(|answer| answer.server))).len() == 3
    });
    pressure.stop().assert_flawless();
}

/// IN-8: Services appear, change and disappear with their manifests, without waiting for a periodic sync.
#[test]
fn services_come_and_go() {
    let cluster = cluster!(1);
    let _agent = cluster.lab.agent().expect("an agent");
    let reaches = |address| cluster.client.run(|| ask(at(address))).is_ok();
    let mut waits = Vec::new();
    for _ in 0..5 {
        cluster.serve("web", &service("web", &["10.96.0.10"])).expect("manifests");
        waits.push(eventually("the Service works", || reaches("10.96.0.10:80")));
        // The new address replaces the old one, which goes a moment later.
        cluster.serve("web", &service("web", &["10.96.0.11"])).expect("manifests");
        waits.push(eventually("the new address works", || reaches("10.96.0.11:80")));
        eventually("the old address works no more", || !reaches("10.96.0.10:80"));
        cluster.lab.manifests().remove("web.yaml").expect("removal");
        waits.push(eventually("the Service is gone", || !reaches("10.96.0.11:80")));
    }
    waits.sort();
    println!(
        "a change took {:?} in the median, {:?} at most",
        waits[waits.len() / 2],
        waits[waits.len() - 1]
    );
    assert!(waits[waits.len() / 2] < Duration::from_secs(1), "{waits:?}");
}

/// A Service without its last endpoint refuses new connections; established ones go on.
#[test]
fn losing_the_last_endpoint_breaks_no_connection() {
    let cluster = cluster!(1);
    cluster.lab.manifests().write("web.yaml", &[&service("web", &["10.96.0.10"])]).expect("manifests");
    cluster.endpoints("web", &cluster.slice_v4("web", [0])).expect("manifests");
    let _agent = cluster.lab.agent().expect("an agent");
    let vip = at("10.96.0.10:80");
    let mut conversation =
        cluster.client.run(|| sidestep_tests::traffic::Conversation::with(vip)).expect("a connection");
    conversation.ask().expect("an answer");
    cluster.endpoints("web", &slice("web")).expect("manifests");
    eventually("new connections are refused", || is_refused(&cluster.client.run(|| connect(vip))));
    conversation.ask().expect("ST-4: the old connection goes on");
    cluster.lab.manifests().remove("web.yaml").expect("removal");
    eventually("the Service is gone", || !is_refused(&cluster.client.run(|| connect(vip))));
    conversation.ask().expect("ST-4: the connection survives the Service");
    assert_eq!(conversation.peer().expect("a peer"), vip);
}
