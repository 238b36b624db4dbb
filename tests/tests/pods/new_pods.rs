//! A pod that comes while the agent runs is served from its first packets, and one that goes leaves nothing behind.

use std::time::{Duration, Instant};

use sidestep_tests::{
    TwoNodes, agent::ABI, bpftool, eventually, in_both_extremes, pace::within, traffic::ask,
    two_nodes::cluster_ips,
};

use crate::{client, serve};

in_both_extremes!(a_new_pod_is_served_at_once, the_programs_of_a_pod_go_with_it);

/// How many pods come.
const PODS: usize = 10;
/// What container runtimes and CNI plugins still do once a pod has its device, at the least.
const START: Duration = Duration::from_millis(200);
/// The kernel's first retry of a SYN.
const RETRY: Duration = Duration::from_secs(1);

/// None of its first packets is lost.
fn a_new_pod_is_served_at_once(nodes: &TwoNodes) {
    let server = nodes.backend_there("there").expect("a pod");
    let _agent = serve(nodes, &[&server]);
    let [way, _] = cluster_ips();
    let interfaces = nodes.lab().pin_directory().join(ABI).join("INTERFACES");
    let dump = ["map", "dump", "pinned", interfaces.to_str().expect("a name in UTF-8")];
    let served = || bpftool::json(&dump).expect("bpftool").as_array().map_or(0, Vec::len);
    let mut longest = Duration::ZERO;
    for number in 0..PODS {
        let (before, began) = (served(), Instant::now());
        let client = client(nodes, &format!("new-{number}"));
        eventually("its device is served", || served() == before + 1);
        longest = longest.max(began.elapsed());
        std::thread::sleep(within(START).saturating_sub(began.elapsed()));
        let began = Instant::now();
        client.run(|| ask(way.tcp)).unwrap_or_else(|error| panic!("pod {number}: {error}"));
        assert!(began.elapsed() < RETRY, "pod {number}: {:?}", began.elapsed());
        drop(client);
        eventually("it is not any more", || served() == before);
    }
    println!("{PODS} pods: from before they were made until their devices were served at most {longest:?}");
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
