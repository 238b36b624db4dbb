//! An agent with a wrong cgroup, server or leftover links ends with an error, or repairs them; it never runs without
//! effect.

use std::process::Output;

use proxy_agent::dataplane::{Capacity, FlowOptions, HOOKS, Options, SocketOptions, attach, load};
use sidestep_tests::{
    Lab, agent, bpftool,
    cgroup::Cgroup,
    cluster,
    cluster::{Cluster, at, service},
    eventually, lab,
    traffic::ask,
};

/// `sidestep run` on the lab's node with exactly these arguments; it has to end by itself.
fn run(lab: &Lab, arguments: &[&str]) -> Output {
    let mut command = std::process::Command::new("timeout");
    command.arg("20").arg(agent::binary().expect("the binary")).arg("run").args(arguments);
    command.arg("--pin-dir").arg(lab.pin_directory()).arg("--run-dir").arg(lab.run_directory());
    lab.node().namespace().run(|| command.output()).expect("a namespace").expect("it starts")
}

fn refused(lab: &Lab, arguments: &[&str]) -> String {
    let output = run(lab, arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    said
}

/// The agent rejects a directory that is not a cgroup, before it makes or attaches anything.
#[test]
fn a_cgroup_root_that_is_no_cgroup_is_refused() {
    let lab = lab!();
    let manifests = lab.manifests();
    let directory = manifests.directory().to_str().expect("UTF-8");
    let said = refused(&lab, &["--manifests", directory, "--cgroup-root", directory]);
    assert!(said.contains("is not a directory of cgroup2") && said.contains(directory), "{said}");
    assert!(!lab.pin_directory().exists(), "the agent made its pin directory");
}

/// The client would take an API server without `https://` for a path on this machine.
#[test]
fn a_server_without_a_scheme_is_refused() {
    let lab = lab!();
    let root = lab.root().path().to_str().expect("UTF-8");
    for server in ["10.0.0.1:6443", "api.example"] {
        let said = refused(&lab, &["--server", server, "--cgroup-root", root]);
        assert!(said.contains(server) && said.contains("https://"), "{said}");
    }
}

/// The programs of an earlier agent, attached to this cgroup with the lab's pins.
fn attached_to(cluster: &Cluster, cgroup: &Cgroup) {
    let options = Options {
        pin_dir: cluster.lab.pin_directory().to_owned(),
        cgroup_root: cgroup.path().to_owned(),
        capacity: Capacity::default(),
        program_log: false,
        sockets: SocketOptions::default(),
        flows: FlowOptions::default(),
    };
    let mut programs = load(&options).expect("the programs load");
    attach(&mut programs, &options).expect("the programs attach");
    assert_eq!(bpftool::cgroup_programs(cgroup.path()).expect("bpftool").len(), HOOKS.len());
}

/// Links outlive their cgroup, and then attach nothing: the agent replaces them.
#[test]
fn links_of_a_cgroup_that_was_removed_are_made_anew() {
    let cluster = cluster!(1);
    cluster.serve("web", &service("web", &["10.96.0.10"])).expect("manifests");
    let old = cluster.lab.root().child("old").expect("a cgroup");
    attached_to(&cluster, &old);
    let path = old.path().to_owned();
    assert!(status(&cluster).contains("programs  all 9 attached"));
    drop(old);
    assert!(!path.exists());
    eventually("status reports that the links are severed", || {
        let text = status(&cluster);
        text.contains("programs  NOT attached: release") && text.contains("severed: release")
    });

    let _agent = cluster.lab.agent().expect("an agent");
    let programs = bpftool::cgroup_programs(cluster.lab.root().path()).expect("bpftool");
    assert_eq!(programs.len(), HOOKS.len(), "{programs:?}");
    cluster.client.run(|| ask(at("10.96.0.10:80"))).expect("an answer");
}

/// Links to another existing cgroup may be in use: the agent names them and the remedy, and the remedy works.
#[test]
fn links_of_another_cgroup_are_named() {
    let cluster = cluster!(1);
    cluster.serve("web", &service("web", &["10.96.0.10"])).expect("manifests");
    let other = cluster.lab.outside().child("other").expect("a cgroup");
    attached_to(&cluster, &other);

    let error = cluster.lab.agent().expect_err("links of another cgroup").to_string();
    assert!(
        error.contains("attached to a cgroup other than") && error.contains("sidestep cleanup"),
        "{error}"
    );
    assert!(cluster.lab.sidestep(&["cleanup"]).expect("cleanup runs").status.success());
    let _agent = cluster.lab.agent().expect("an agent");
    cluster.client.run(|| ask(at("10.96.0.10:80"))).expect("an answer");
}

/// The output of `sidestep status`.
fn status(cluster: &Cluster) -> String {
    let output = cluster.lab.sidestep(&["status"]).expect("status runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
