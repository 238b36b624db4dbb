//! Somebody sets the agent's clock: a year on, and two back. Nothing follows it but what the agent tells of the time.

use std::{fs, path::PathBuf};

use sidestep_tests::{
    Agent, cluster,
    cluster::{at, service},
    eventually,
    pressure::Pressure,
    program, skip,
    topology::NODE_V4,
    traffic::{Conversation, ask},
};

use crate::health_and_metrics::get;

const TCP: &str = "10.96.0.10:80";
const UDP: &str = "10.96.0.10:53";
const STICKY: &str = "10.96.0.20:80";
const DAY: i64 = 24 * 60 * 60;

/// The library that tells programs another time.
fn faketime() -> Option<PathBuf> {
    let path = format!("usr/lib/{}-linux-gnu/faketime/libfaketimeMT.so.1", std::env::consts::ARCH);
    let roots = [Some(PathBuf::from("/")), program::root()];
    roots.into_iter().flatten().map(|root| root.join(&path)).find(|library| library.is_file())
}

#[test]
fn a_clock_that_is_set_changes_nothing() {
    let Some(library) = faketime() else { skip!("{}", program::absent("libfaketime")) };
    let cluster = cluster!(3);
    cluster.serve("web", &service("web", &["10.96.0.10"])).expect("manifests");
    let sticky = service("sticky", &["10.96.0.20"]).client_ip_affinity(600);
    cluster.serve("sticky", &sticky).expect("manifests");
    let offset = cluster.lab.log_file().with_extension("clock");
    let set = |days: i64| fs::write(&offset, format!("{:+}\n", days * DAY)).expect("a file");
    set(0);
    let agent = Agent::reading(&cluster.lab)
        .variable("LD_PRELOAD", library)
        .variable("FAKETIME_TIMESTAMP_FILE", &offset)
        .variable("FAKETIME_NO_CACHE", "1")
        .variable("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .variable("NO_FAKE_STAT", "1");
    let _agent = agent.started(&cluster.lab).expect("an agent");
    let pressure = Pressure::start(&cluster.client, at(TCP), at(UDP));
    let mut conversation = cluster.client.run(|| Conversation::with(at(TCP))).expect("a connection");
    let first = conversation.ask().expect("an answer");
    let sticks = || cluster.client.run(|| ask(at(STICKY))).expect("an answer").server;
    let stays = sticks();

    // What it tells of the time shows that its clock was set.
    let outside = cluster.lab.other_node();
    let health = || outside.run(|| get((NODE_V4, 10256).into(), "/livez")).unwrap_or_default();
    let year = || {
        let answer = health();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let (_, time) = answer.split_once("\"currentTime\":\"").expect("a time");
        time[..4].parse::<i32>().expect("a year")
    };
    let now = year();
    for (days, expected) in [(365, [now, now + 1]), (-730, [now - 2, now - 3]), (0, [now; 2])] {
        set(days);
        eventually("the clock is another", || expected.contains(&year()));
        // One endpoint less, and all of them again.
        for endpoints in [0..2, 0..3] {
            let wanted = endpoints.len();
            cluster.endpoints("web", &cluster.slice_v4("web", endpoints)).expect("manifests");
            eventually("a change is followed", || {
                let seen = (0..24).filter_map(|_| cluster.client.run(|| ask(at(TCP))).ok());
                let seen: std::collections::BTreeSet<String> = seen.map(|answer| answer.server).collect();
                seen.len() == wanted
            });
        }
        assert_eq!(conversation.ask().expect("an answer"), first, "the connection changed its endpoint");
        assert_eq!(sticks(), stays, "affinity was forgotten");
    }
    pressure.let_pass(50);
    pressure.stop().assert_flawless();
}
