//! The BPF file system is unmounted under the agent: it goes on serving, `status` and the report say what happened, and
//! once one is mounted there again, everything is pinned as before.

use std::path::Path;

use sidestep_tests::{
    Agent, bpftool, cluster,
    cluster::{at, service},
    eventually,
    mounts::{self, Mount},
    pressure::Pressure,
    skip,
};

use super::status;

const BPFFS: &str = "/sys/fs/bpf";

#[test]
fn a_bpf_file_system_that_is_unmounted_is_named_and_its_pins_are_made_anew() {
    if let Some(reason) = skip::missing() {
        skip!("{reason}");
    }
    // The machine's own stays as it is, out of our sight.
    mounts::own_namespace().expect("mounts of our own");
    let bpffs = Path::new(BPFFS);
    while mounts::detach(bpffs).is_ok() {}
    let first = Mount::bpffs(bpffs).expect("a BPF file system");
    let cluster = cluster!(2);
    let lab = &cluster.lab;
    cluster.serve("web", &service("web", &["10.96.0.10"])).expect("manifests");
    // In a container, where it mounts nothing itself.
    let mut agent =
        Agent::reading(lab).variable("KUBERNETES_SERVICE_HOST", "10.96.0.1").started(lab).expect("an agent");
    let before = bpftool::pinned_ids(lab.pin_directory()).expect("ids");
    assert!(before.len() > 10, "{before:?}");
    let pressure = Pressure::start(&cluster.client, at("10.96.0.10:80"), at("10.96.0.10:53"));

    drop(first);
    let text = status(lab);
    assert!(text.contains("was unmounted while the agent runs"), "{text}");
    eventually("the agent reports it", || {
        agent.report().is_ok_and(|report| report.names("this node", "BPF file system"))
    });
    assert!(status(lab).contains("this node: BPF file system: "), "{}", status(lab));
    pressure.let_pass(50);

    let _second = Mount::bpffs(bpffs).expect("a BPF file system");
    eventually("everything is pinned again", || {
        agent.report().is_ok_and(|report| !report.names("this node", "BPF file system"))
    });
    assert_eq!(bpftool::pinned_ids(lab.pin_directory()).expect("ids"), before);
    assert!(status(lab).contains("programs  all 9 attached"), "{}", status(lab));

    // Nothing depends on the agent any more.
    agent.kill().expect("kill -9");
    pressure.let_pass(50);
    agent.restart(lab).expect("restart");
    pressure.let_pass(50);
    assert_eq!(bpftool::pinned_ids(lab.pin_directory()).expect("ids"), before);
    pressure.stop().assert_flawless();
}
