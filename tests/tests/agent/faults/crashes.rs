//! The real agent dies before one or another of the writes to the tables that a change takes, until the change gets
//! through: clients get the endpoints from before or those from after it, and the next agent makes the
//! tables what the manifests say.
//!
//! Only a debug build has the place to die (`dataplane/tables/crash.rs`), and there the same is tried for random changes.

use std::{collections::BTreeSet, os::unix::process::ExitStatusExt as _, time::Duration};

use proxy_agent::dataplane::Tables;
use sidestep_tests::{
    Agent, cluster,
    cluster::{Cluster, at, service},
    pressure::Pressure,
    skip,
    traffic::ask,
};

/// The variable that a debug build heeds.
const VARIABLE: &str = "SIDESTEP_DIE_BEFORE_WRITE";
/// An agent that lives for so long after the change has made it.
const ALIVE: Duration = Duration::from_secs(10);
/// More writes than the change takes, and which of them are tried.
const MOST: usize = 200;
const STEP: usize = 3;
/// The change takes more than three times so many.
const LEAST: usize = 10;

const WEB: &str = "10.96.0.10:80";
const A: &str = "10.96.0.20:80";
const B: &str = "10.96.0.21:80";

/// One change, there or back: a Service gets other endpoints, one comes, and one goes.
fn change(cluster: &Cluster, there: bool) {
    let (endpoints, comes, vip) =
        if there { ([1, 2], "b", "10.96.0.21") } else { ([0, 1], "a", "10.96.0.20") };
    let (web, slice) = (service("web", &["10.96.0.10"]), cluster.slice_v4("web", endpoints));
    let (other, other_slice) = (service(comes, &[vip]), cluster.slice_v4(comes, [0]));
    cluster.lab.manifests().write("all.yaml", &[&web, &slice, &other, &other_slice]).expect("manifests");
}

/// The servers of the Service that stays.
fn endpoints(there: bool) -> BTreeSet<String> {
    let names = if there { ["pod-1", "pod-2"] } else { ["pod-0", "pod-1"] };
    names.map(str::to_owned).into()
}

/// The servers that answer at an address; nothing if it refuses.
fn servers(cluster: &Cluster, vip: &'static str) -> BTreeSet<String> {
    let answers = (0..30).map_while(|_| cluster.client.run(|| ask(at(vip))).ok());
    answers.map(|answer| answer.server).collect()
}

/// Whether everything is as the manifests say, after a change there or back.
fn check(cluster: &Cluster, there: bool, number: usize) {
    let [comes, goes] = if there { [B, A] } else { [A, B] };
    assert_eq!(servers(cluster, WEB), endpoints(there), "before write {number}");
    assert_eq!(
        (servers(cluster, comes).len(), servers(cluster, goes).len()),
        (1, 0),
        "before write {number}"
    );
    let tables = Tables::open(cluster.lab.pin_directory()).expect("the tables");
    assert_eq!(
        (tables.names.keys().count(), tables.frontends.keys().count()),
        (4, 4),
        "before write {number}"
    );
}

#[test]
fn an_agent_that_dies_at_any_write_leaves_the_old_set_or_the_new_one() {
    let cluster = cluster!(3);
    change(&cluster, false);
    let mut agent = cluster.lab.agent().expect("an agent");
    let pressure = Pressure::start(&cluster.client, at(WEB), at("10.96.0.10:53"));
    agent.stop().expect("it stops");
    let (mut deaths, mut there) = (0, false);
    for number in (1..MOST).step_by(STEP) {
        let mut agent = Agent::reading(&cluster.lab).variable(VARIABLE, number.to_string());
        agent.restart(&cluster.lab).expect("an agent");
        check(&cluster, there, number);
        there = !there;
        change(&cluster, there);
        let Ok(status) = agent.wait_for_end(ALIVE) else {
            // The change got through.
            check(&cluster, there, number);
            break;
        };
        assert_eq!(status.signal(), Some(libc::SIGKILL), "{status}");
        deaths += 1;
        let seen = servers(&cluster, WEB);
        assert!([true, false].map(endpoints).contains(&seen), "before write {number}: {seen:?}");
    }
    pressure.stop().assert_flawless();
    println!("{deaths} deaths");
    if deaths == 0 {
        skip!("the agent is a release build, which has no place to die");
    }
    assert!((LEAST..MOST / STEP).contains(&deaths), "{deaths} deaths");
}
