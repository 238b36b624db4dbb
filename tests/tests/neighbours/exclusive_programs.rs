//! Programs that keep others out of their hook: `run`, `doctor` and `status` name the program, its place and the remedy,
//! nothing of ours is attached, and the remedy works.

use sidestep_tests::{
    Agent, bpftool, cluster,
    cluster::{Cluster, at, service},
    foreign::counted::{Attached, CgroupHook, Counted},
    traffic::ask,
};

use crate::{check, status};

#[test]
fn an_exclusive_program_at_our_cgroup_is_named_and_the_remedy_works() {
    keeps_ours_out(&cluster!(1), Attached::Exclusively, false);
}

/// Only in a cgroup below would ours take its place.
#[test]
fn a_program_that_may_be_overridden_keeps_ours_out_of_its_own_cgroup() {
    keeps_ours_out(&cluster!(1), Attached::Override, false);
}

#[test]
fn an_exclusive_program_above_our_cgroup_is_named_and_the_remedy_works() {
    keeps_ours_out(&cluster!(1), Attached::Exclusively, true);
}

fn keeps_ours_out(cluster: &Cluster, attached: Attached, above: bool) {
    cluster.serve("web", &service("web", &["10.96.0.10"])).expect("manifests");
    let root = cluster.lab.root().path();
    let place = if above { root.parent().expect("the lab's cgroup") } else { root };
    // At the last hook but one: the others must stay free.
    let careless = Counted::at_cgroup(place, CgroupHook::Connect4, attached, "careless").expect("attaching");
    let id = careless.id();
    let parts = [
        format!("connect4: `careless` ({id})"),
        place.display().to_string(),
        "BPF_F_ALLOW_MULTI".to_owned(),
        format!("bpftool cgroup detach {} connect4 id {id}", place.display()),
    ];
    let assert_named =
        |told: &str| parts.iter().for_each(|part| assert!(told.contains(part), "{part}: {told}"));

    let (outcome, detail) = check(&cluster.lab, "programs on the cgroup");
    assert_eq!(outcome, "failed", "{detail}");
    assert_named(&detail);
    let mut agent = Agent::reading(&cluster.lab);
    assert_named(&agent.restart(&cluster.lab).expect_err("no room for ours").to_string());
    let is_ours = |program: &u64| *program != u64::from(id);
    let programs = bpftool::cgroup_programs(root).expect("bpftool");
    assert!(!programs.iter().any(is_ours), "some of ours are attached: {programs:?}");
    assert_named(&status(&cluster.lab));
    let before = careless.count();
    cluster.client.run(|| ask(at("10.96.0.10:80"))).expect_err("nobody serves it");
    assert!(careless.count() > before, "it does not run any more");

    // As the message says.
    let (path, id) = (place.to_str().expect("UTF-8"), id.to_string());
    bpftool::json(&["cgroup", "detach", path, "connect4", "id", &id]).expect("detached");
    agent.restart(&cluster.lab).expect("there is room");
    cluster.client.run(|| ask(at("10.96.0.10:80"))).expect("an answer");
    assert_eq!(check(&cluster.lab, "programs on the cgroup").0, "ok");
}

/// The kernel has ours take the place of such a program without a word.
#[test]
fn a_program_above_whose_place_ours_takes_is_named() {
    let cluster = cluster!(1);
    cluster.serve("web", &service("web", &["10.96.0.10"])).expect("manifests");
    let above = cluster.lab.root().path().parent().expect("the lab's cgroup").to_owned();
    let yielding =
        Counted::at_cgroup(&above, CgroupHook::Connect4, Attached::Override, "yielding").expect("attaching");
    let part = format!("connect4: `yielding` ({}) at {}", yielding.id(), above.display());
    let (outcome, detail) = check(&cluster.lab, "programs on the cgroup");
    assert!(outcome == "warning" && detail.contains(&part), "{outcome}: {detail}");
    let agent = cluster.lab.agent().expect("an agent");
    cluster.client.run(|| ask(at("10.96.0.10:80"))).expect("an answer");
    let report = agent.report().expect("a report");
    assert!(report.names("this node", &part), "{:?}", report.problems);
    assert!(status(&cluster.lab).contains(&part));
}
