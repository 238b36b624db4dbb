//! A pod that comes while the agent runs is served from its first packets, and one that goes leaves nothing behind.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use nix::net::if_::if_nametoindex;
use sidestep_tests::{
    Place, TwoNodes, devices::pins, eventually, in_both_extremes, pace::within, traffic::ask,
    two_nodes::cluster_ips,
};

use crate::{client, serve};

in_both_extremes!(
    a_new_pod_is_served_at_once,
    pods_that_come_in_a_burst_are_served,
    the_programs_of_a_pod_go_with_it
);

/// How many pods come one by one, and at once if `SIDESTEP_BURST` does not say it.
const PODS: usize = 10;
/// How many come at the same time, of those that come at once.
const AT_A_TIME: usize = 4;
/// What container runtimes and CNI plugins still do once a pod has its device, at the least.
const START: Duration = Duration::from_millis(200);
/// The kernel's first retry of a SYN.
const RETRY: Duration = Duration::from_secs(1);

/// None of its first packets is lost.
fn a_new_pod_is_served_at_once(nodes: &TwoNodes) {
    let server = nodes.backend_there("there").expect("a pod");
    let _agent = serve(nodes, &[&server]);
    let [way, _] = cluster_ips();
    let served = || served(nodes).len();
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

/// Each asks as soon as it is there, and is answered: at the second attempt if its first packet was faster than the agent.
fn pods_that_come_in_a_burst_are_served(nodes: &TwoNodes) {
    let server = nodes.backend_there("there").expect("a pod");
    let _agent = serve(nodes, &[&server]);
    let [way, _] = cluster_ips();
    let count = std::env::var("SIDESTEP_BURST").map_or(PODS, |count| count.parse().expect("a number"));
    let before = served(nodes);
    let (over, next, late) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let mut times = std::thread::scope(|scope| {
        let watch = scope.spawn(|| served_after(nodes, &before, &over));
        let come = || {
            let mut pods = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return pods;
                }
                let client = client(nodes, &format!("new-{number}"));
                let began = Instant::now();
                let answered = client.run(|| {
                    // The node has no route to a Service's address, and says so.
                    ask(way.tcp).or_else(|_| {
                        std::thread::sleep(RETRY.saturating_sub(began.elapsed()));
                        ask(way.tcp)
                    })
                });
                answered.unwrap_or_else(|error| panic!("pod {number}: {error}"));
                late.fetch_add(usize::from(began.elapsed() >= RETRY), Ordering::Relaxed);
                pods.push(client);
            }
        };
        let coming: Vec<_> = (0..AT_A_TIME).map(|_| scope.spawn(come)).collect();
        let pods: Vec<Vec<Place>> = coming.into_iter().map(|one| one.join().expect("served")).collect();
        over.store(true, Ordering::Relaxed);
        let times = watch.join().expect("it watches");
        drop(pods);
        times
    });
    assert_eq!(times.len(), count, "all are served");
    times.sort();
    let at = |percent: usize| times[(count * percent / 100).min(count - 1)];
    println!(
        "{count} pods: served {:?} after their devices were there (median), {:?} (99 %), {:?} (the last); {} asked too early",
        at(50),
        at(99),
        at(100),
        late.into_inner()
    );
}

/// The devices with both programs, by number: the one at ingress comes last, and is pinned when the kernel has attached it.
fn served(nodes: &TwoNodes) -> BTreeSet<u32> {
    let pins =
        std::fs::read_dir(pins(nodes.lab())).expect("links").map(|pin| pin.expect("a link").file_name());
    pins.filter_map(|pin| pin.to_str()?.strip_suffix("-ingress")?.parse().ok()).collect()
}

/// How long after they were there the devices of new pods were served, until it is over and all are.
fn served_after(nodes: &TwoNodes, before: &BTreeSet<u32>, over: &AtomicBool) -> Vec<Duration> {
    nodes.node().enter().expect("the thread enters the node");
    let mut coming: BTreeMap<u32, Instant> = BTreeMap::new();
    let mut times = Vec::new();
    let mut names: BTreeSet<String> = (1..u8::MAX).map(|number| format!("pod{number}")).collect();
    while !(over.load(Ordering::Relaxed) && coming.is_empty()) {
        names.retain(|name| {
            let Ok(index) = if_nametoindex(name.as_str()) else { return true };
            if !before.contains(&index) {
                coming.insert(index, Instant::now());
            }
            false
        });
        for index in served(nodes) {
            times.extend(coming.remove(&index).map(|began| began.elapsed()));
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    times
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
