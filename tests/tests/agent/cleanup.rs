//! `sidestep cleanup` removes everything that Sidestep made, and nothing else.

use sidestep_tests::{
    bpftool, cluster,
    cluster::{at, service},
    foreign::{ForeignProgram, Verdict},
    traffic::ask,
};

/// HE-6: a foreign program on the same cgroup stays attached before, during and after.
#[test]
fn cleanup_removes_everything_of_ours_and_nothing_else() {
    let cluster = cluster!(1);
    cluster.serve("web", &service("web", &["10.96.0.10"])).expect("manifests");
    let root = cluster.lab.root().path();
    let programs = || bpftool::cgroup_programs(root).expect("bpftool");
    let _foreign = ForeignProgram::attach(root, Verdict::Pass).expect("attaching");
    let foreign = programs();
    assert_eq!(foreign.len(), 1);

    let mut agent = cluster.lab.agent().expect("an agent");
    assert!(programs().len() > 8, "our programs are not attached beside the foreign one: {:?}", programs());
    assert!(programs().contains(&foreign[0]));
    cluster.client.run(|| ask(at("10.96.0.10:80"))).expect("Services work with both on one cgroup");
    agent.stop().expect("it stops");
    assert!(programs().len() > 8, "the agent detached its programs when it stopped");

    let output = cluster.lab.sidestep(&["cleanup"]).expect("cleanup runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(programs(), foreign);
    let left = std::fs::read_dir(cluster.lab.pin_directory()).map_or(0, Iterator::count);
    assert_eq!(left, 0, "pins are left in {}", cluster.lab.pin_directory().display());
    cluster.client.run(|| ask(at("10.96.0.10:80"))).expect_err("cleanup removed the Service");

    let output = cluster.lab.sidestep(&["cleanup"]).expect("cleanup runs");
    assert!(output.status.success(), "cleanup fails if there is nothing to remove");
}

/// An agent starts after a cleanup, as on a new node.
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

/// A program attached exclusively to a hook leaves no room for ours: the agent names the cgroup and the hook, and
/// leaves the foreign program alone.
#[test]
fn an_exclusive_program_is_named_and_left_alone() {
    let cluster = cluster!(1);
    let root = cluster.lab.root().path();
    let _foreign = ForeignProgram::attach_exclusively(root, Verdict::Pass).expect("attaching");
    let before = bpftool::cgroup_programs(root).expect("bpftool");
    let error = cluster.lab.agent().expect_err("no room for a second program").to_string();
    assert!(error.contains("connect4") && error.contains(&root.display().to_string()), "{error}");
    assert!(bpftool::cgroup_programs(root).expect("bpftool").contains(&before[0]));
    assert!(cluster.lab.sidestep(&["cleanup"]).expect("cleanup runs").status.success());
    assert_eq!(bpftool::cgroup_programs(root).expect("bpftool"), before);
}
