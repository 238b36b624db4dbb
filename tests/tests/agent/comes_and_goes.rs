//! An agent's start, stop, crash and restart break no connection, and new connections keep working.

use proxy_agent::dataplane::Tables;
use sidestep_tests::{
    Agent, bpftool, cluster,
    cluster::{Cluster, at, service},
    eventually,
    pressure::Pressure,
    traffic::{Conversation, ask},
};

const TCP: &str = "10.96.0.10:80";
const UDP: &str = "10.96.0.10:53";

fn start(cluster: &Cluster) -> Agent {
    cluster.serve("web", &service("web", &["10.96.0.10"])).expect("manifests");
    cluster.lab.agent().expect("an agent")
}

/// `kill -9` and restart under traffic: no request fails, and the new agent adopts the same maps and links.
#[test]
fn a_crash_and_a_restart_fail_no_connection_and_detach_nothing() {
    let cluster = cluster!(3);
    let mut agent = start(&cluster);
    let pressure = Pressure::start(&cluster.client, at(TCP), at(UDP));
    let mut conversation = cluster.client.run(|| Conversation::with(at(TCP))).expect("a connection");
    let first = conversation.ask().expect("an answer");
    let before = bpftool::pinned_ids(cluster.lab.pin_directory()).expect("ids");
    assert!(before.len() > 10, "maps and links are pinned: {before:?}");

    for _ in 0..3 {
        pressure.let_pass(50);
        agent.kill().expect("kill -9");
        pressure.let_pass(100);
        agent.restart(&cluster.lab).expect("restart");
        pressure.let_pass(50);
    }
    let after = bpftool::pinned_ids(cluster.lab.pin_directory()).expect("ids");
    assert_eq!(before, after, "the restart replaced maps or links");
    assert_eq!(conversation.ask().expect("an answer"), first, "the old connection changed its endpoint");
    pressure.stop().assert_flawless();
}

/// A restarted agent installs the changes that it missed, and follows later ones.
#[test]
fn a_restarted_agent_catches_up() {
    let cluster = cluster!(2);
    cluster.lab.manifests().write("web.yaml", &[&service("web", &["10.96.0.10"])]).expect("manifests");
    cluster.lab.manifests().write("old.yaml", &[&service("old", &["10.96.0.11"])]).expect("manifests");
    cluster.endpoints("web", &cluster.slice_v4("web", [0])).expect("manifests");
    let mut agent = cluster.lab.agent().expect("an agent");
    let who = |vip| cluster.client.run(|| ask(at(vip)).map(|answer| answer.server));
    assert_eq!(who(TCP).expect("an answer"), "pod-0");

    agent.kill().expect("kill -9");
    cluster.endpoints("web", &cluster.slice_v4("web", [1])).expect("manifests");
    cluster.lab.manifests().remove("old.yaml").expect("removal");
    cluster.serve("new", &service("new", &["10.96.0.12"])).expect("manifests");
    assert_eq!(
        who(TCP).expect("an answer"),
        "pod-0",
        "the last installed state does not hold without an agent"
    );

    agent.restart(&cluster.lab).expect("restart");
    assert_eq!(who(TCP).expect("an answer"), "pod-1");
    who("10.96.0.12:80").expect("an answer");
    cluster.endpoints("web", &cluster.slice_v4("web", [0])).expect("manifests");
    eventually("it follows later changes", || who(TCP).expect("an answer") == "pod-0");
}

/// A restarted agent identifies Services by NAMES. A Service whose name is missing is installed anew, and its addresses
/// work throughout.
#[test]
fn a_restart_without_names_fails_no_connection() {
    let cluster = cluster!(3);
    let mut agent = start(&cluster);
    let pressure = Pressure::start(&cluster.client, at(TCP), at(UDP));
    for _ in 0..3 {
        pressure.let_pass(30);
        agent.kill().expect("kill -9");
        let mut tables = Tables::open(cluster.lab.pin_directory()).expect("the tables");
        let names: Vec<u32> = tables.names.keys().collect::<Result<_, _>>().expect("every key");
        assert_eq!(names.len(), 2, "TCP and UDP");
        for index in names {
            tables.names.remove(&index).expect("a name");
        }
        agent.restart(&cluster.lab).expect("restart");
        pressure.let_pass(30);
        cluster.client.run(|| ask(at(TCP))).expect("the Service works");
        assert_eq!(tables.frontends.keys().count(), 2, "frontends without a Service are left");
    }
    pressure.stop().assert_flawless();
}

/// SIGTERM ends the agent soon and with success, and leaves the datapath in place.
#[test]
fn stopping_the_agent_leaves_the_datapath_in_place() {
    let cluster = cluster!(2);
    let mut agent = start(&cluster);
    let before = bpftool::pinned_ids(cluster.lab.pin_directory()).expect("ids");
    let pressure = Pressure::start(&cluster.client, at(TCP), at(UDP));
    pressure.let_pass(20);
    let status = agent.stop().expect("it stops");
    assert!(status.success(), "{status}");
    pressure.let_pass(200);
    pressure.stop().assert_flawless();
    assert_eq!(before, bpftool::pinned_ids(cluster.lab.pin_directory()).expect("ids"));
}

/// Two agents on one node would undo each other's changes: the second one ends with an error that says so.
#[test]
fn a_second_agent_is_refused() {
    let cluster = cluster!(1);
    let _agent = start(&cluster);
    let manifests = cluster.lab.manifests();
    let directory = manifests.directory().to_str().expect("a path in UTF-8");
    let output = cluster.lab.sidestep(&["run", "--manifests", directory]).expect("it runs");
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && message.contains("another agent"), "{}: {message}", output.status);
    cluster.client.run(|| ask(at(TCP))).expect("the first agent's Services work");
}

/// A second agent is refused whatever its run directory, and so is a cleanup: the tables have one writer.
#[test]
fn a_second_agent_and_a_cleanup_are_refused_while_an_agent_runs() {
    let cluster = cluster!(1);
    let _agent = start(&cluster);
    let elsewhere = cluster.lab.run_directory().join("elsewhere");
    for arguments in [&["cleanup"][..], &["run", "--manifests", "/"]] {
        let mut command = std::process::Command::new(sidestep_tests::agent::binary().expect("the binary"));
        command
            .args(arguments)
            .arg("--run-dir")
            .arg(&elsewhere)
            .arg("--pin-dir")
            .arg(cluster.lab.pin_directory());
        command.arg("--cgroup-root").arg(cluster.lab.root().path());
        let output = cluster.lab.node().run(|| command.output()).expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("an agent is using the maps"), "{said}");
    }
    cluster.client.run(|| ask(at(TCP))).expect("Services still work");
}
