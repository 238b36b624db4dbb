//! A pod that comes while the agent runs is served from its first packets, and one that goes leaves nothing behind.

use std::time::{Duration, Instant};

use sidestep_tests::{TwoNodes, eventually, in_both_extremes, traffic::ask, two_nodes::cluster_ips};

use crate::{client, serve};

in_both_extremes!(a_new_pod_is_served_at_once, the_programs_of_a_pod_go_with_it);

/// How many pods come.
const PODS: usize = 10;
/// The kernel's first retry of a SYN: a client that was late by less notices nothing but that.
const RETRY: Duration = Duration::from_secs(1);

fn a_new_pod_is_served_at_once(nodes: &TwoNodes) {
    let server = nodes.backend_there("there").expect("a pod");
    let _agent = serve(nodes, &[&server]);
    let [way, _] = cluster_ips();
    let mut longest = Duration::ZERO;
    for number in 0..PODS {
        let began = Instant::now();
        let client = client(nodes, &format!("new-{number}"));
        client.run(|| ask(way.tcp)).unwrap_or_else(|error| panic!("pod {number}: {error}"));
        longest = longest.max(began.elapsed());
    }
    println!("{PODS} pods: from nothing to an answer at most {longest:?}");
    assert!(longest < 3 * RETRY, "{longest:?}");
}

fn the_programs_of_a_pod_go_with_it(nodes: &TwoNodes) {
    let server = nodes.backend_there("there").expect("a pod");
    let _agent = serve(nodes, &[&server]);
    let devices = || {
        let status = nodes.lab().sidestep(&["status", "-o", "json"]).expect("it runs");
        let status: serde_json::Value = serde_json::from_slice(&status.stdout).expect("JSON");
        status["podDevices"].as_array().map_or(0, Vec::len)
    };
    let before = devices();
    let client = client(nodes, "client");
    eventually("its device is served", || devices() == before + 1);
    drop(client);
    eventually("nothing of it is left", || devices() == before);
}
