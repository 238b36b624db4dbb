//! Programs of others at the hooks of ours, attached by a link or with `BPF_F_ALLOW_MULTI`, before ours or after: both
//! run, through start, crash, restart and cleanup.

use sidestep_tests::{
    bpftool, cluster,
    cluster::{Cluster, at, service},
    foreign::counted::{Attached, CgroupHook, Counted},
    traffic::ask,
};

#[test]
fn programs_that_were_there_before_keep_running_at_the_same_cgroup() {
    let cluster = cluster!(1);
    let there = attach(&cluster);
    let mut agent = serve(&cluster);
    agent.kill().expect("kill -9");
    agent.restart(&cluster.lab).expect("restart");
    assert_all_run(&cluster, &there);
    agent.stop().expect("it stops");
    clean_up(&cluster, &there);
}

#[test]
fn programs_that_come_later_run_beside_ours() {
    let cluster = cluster!(1);
    let mut agent = serve(&cluster);
    let there = attach(&cluster);
    assert_all_run(&cluster, &there);
    agent.stop().expect("it stops");
    agent.restart(&cluster.lab).expect("restart");
    assert_all_run(&cluster, &there);
    agent.stop().expect("it stops");
    clean_up(&cluster, &there);
}

/// One for each hook and way to share it.
fn attach(cluster: &Cluster) -> Vec<Counted> {
    let ways = [Attached::Link, Attached::Multi];
    let hooks = [CgroupHook::Connect4, CgroupHook::Release];
    let all = ways.into_iter().flat_map(|way| hooks.map(|hook| (hook, way)));
    let root = cluster.lab.root().path();
    all.map(|(hook, way)| Counted::at_cgroup(root, hook, way, "foreign").expect("attaching")).collect()
}

fn serve(cluster: &Cluster) -> sidestep_tests::Agent {
    cluster.serve("web", &service("web", &["10.96.0.10"])).expect("manifests");
    let agent = cluster.lab.agent().expect("an agent");
    cluster.client.run(|| ask(at("10.96.0.10:80"))).expect("an answer");
    assert!(agent.report().expect("a report").problems.is_empty());
    agent
}

/// Each still stands at the cgroup, and a connection passes each of them and ours.
fn assert_all_run(cluster: &Cluster, there: &[Counted]) {
    let counts = || there.iter().map(Counted::count).collect::<Vec<_>>();
    let before = counts();
    cluster.client.run(|| ask(at("10.96.0.10:80"))).expect("an answer");
    let after = counts();
    assert!(before.iter().zip(&after).all(|(before, after)| after > before), "{before:?} {after:?}");
    assert_attached(cluster, there);
}

fn assert_attached(cluster: &Cluster, there: &[Counted]) {
    let programs = bpftool::cgroup_programs(cluster.lab.root().path()).expect("bpftool");
    assert!(there.iter().all(|program| programs.contains(&program.id().into())), "{programs:?}");
}

fn clean_up(cluster: &Cluster, there: &[Counted]) {
    assert!(cluster.lab.sidestep(&["cleanup"]).expect("cleanup runs").status.success());
    let programs = bpftool::cgroup_programs(cluster.lab.root().path()).expect("bpftool");
    assert_eq!(programs.len(), there.len(), "{programs:?}");
    assert_attached(cluster, there);
    let before: Vec<u64> = there.iter().map(Counted::count).collect();
    cluster.client.run(|| ask(at("10.96.0.10:80"))).expect_err("no Service any more");
    assert!(there.iter().zip(before).all(|(program, before)| program.count() > before), "one stopped");
}
