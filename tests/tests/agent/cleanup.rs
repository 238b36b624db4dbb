//! `sidestep cleanup` removes everything that is ours and nothing else.

use sidestep_tests::{
    bpftool, cluster,
    cluster::{at, service},
    foreign::{ForeignProgram, Verdict},
    traffic::ask,
};

/// HE-6, and promise 5: a program of somebody else on the same cgroup is there before, during and after.
#[test]
fn cleanup_removes_what_is_ours_and_nothing_else() {
    let cluster = cluster!(1);
    cluster.serve("web", &service("web", &["10.96.0.10"])).expect("manifests");
    let root = cluster.lab.root().path();
    let programs = || bpftool::cgroup_programs(root).expect("bpftool");
    let _foreign = ForeignProgram::attach(root, Verdict::Pass).expect("attaching");
    let foreign = programs();
    assert_eq!(foreign.len(), 1);

    let mut agent = cluster.lab.agent().expect("an agent");
    assert!(programs().len() > 8, "ours beside the foreign one: {:?}", programs());
    assert!(programs().contains(&foreign[0]));
    cluster.client.run(|| ask(at("10.96.0.10:80"))).expect("both on one cgroup: Services work");
    agent.stop().expect("it stops");
    assert!(programs().len() > 8, "an agent that stops leaves its programs");

    let output = cluster.lab.sidestep(&["cleanup"]).expect("cleanup runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(programs(), foreign);
    let left = std::fs::read_dir(cluster.lab.pin_directory()).map_or(0, Iterator::count);
    assert_eq!(left, 0, "pins are left in {}", cluster.lab.pin_directory().display());
    cluster.client.run(|| ask(at("10.96.0.10:80"))).expect_err("no Service any more");

    let output = cluster.lab.sidestep(&["cleanup"]).expect("cleanup runs");
    assert!(output.status.success(), "with nothing to do it succeeds, too");
}

/// After a cleanup an agent starts as on a new node.
#[test]
fn an_agent_starts_after_a_cleanup() {
    let cluster = cluster!(1);
    cluster.serve("web", &service("web", &["10.96.0.10"])).expect("manifests");
    let mut agent = cluster.lab.agent().expect("an agent");
    agent.stop().expect("it stops");
    assert!(cluster.lab.sidestep(&["cleanup"]).expect("cleanup runs").status.success());
    agent.restart(&cluster.lab).expect("it starts");
    cluster.client.run(|| ask(at("10.96.0.10:80"))).expect("an answer");
}

/// A program that claims a hook for itself alone leaves no room for ours: the agent names the cgroup and the hook, and
/// leaves the other one alone.
#[test]
fn an_exclusive_program_is_named_and_left_alone() {
    let cluster = cluster!(1);
    let root = cluster.lab.root().path();
    let _foreign = ForeignProgram::attach_exclusively(root, Verdict::Pass).expect("attaching");
    let before = bpftool::cgroup_programs(root).expect("bpftool");
    let error = cluster.lab.agent().expect_err("no room").to_string();
    assert!(error.contains("connect4") && error.contains(&root.display().to_string()), "{error}");
    assert!(bpftool::cgroup_programs(root).expect("bpftool").contains(&before[0]));
    assert!(cluster.lab.sidestep(&["cleanup"]).expect("cleanup runs").status.success());
    assert_eq!(bpftool::cgroup_programs(root).expect("bpftool"), before);
}
