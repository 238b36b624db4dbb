//! Tables of another version, in which nothing is where this one has it: an agent converts them, under connections of
//! every kind and new ones all the time, and at whatever write it dies, the next one begins anew.
//!
//! The programs that serve meanwhile use the tables from before they were rewritten: what begins at devices then is not
//! among what is converted. `previous_release` has that.

use std::{fs, os::unix::process::ExitStatusExt as _, time::Duration};

use serde_json::Value;
use sidestep_tests::{
    Agent, TwoNodes, in_every_variant, other_layout,
    pressure::Pressure,
    skip, two_nodes,
    two_nodes::{Variant, cluster_ips, node_ports},
};

use crate::staying::{Staying, publish};

in_every_variant!(tables_of_another_version_are_converted_under_traffic);

/// The variable that a debug build heeds.
const VARIABLE: &str = "SIDESTEP_DIE_BEFORE_WRITE";
/// An agent that dies does so within this time.
const ALIVE: Duration = Duration::from_secs(10);
/// Before which writes of the conversion it dies.
const WRITES: [usize; 6] = [1, 2, 10, 50, 150, 300];
const PAUSE: Duration = Duration::from_millis(2);
/// Before which writes of the switch: pins of former tables, new pins in their places, programs behind links, what is converted
/// once more, and former pins that go.
const SWITCH_WRITES: [usize; 6] = [1, 20, 35, 60, 70, 90];

fn status(nodes: &TwoNodes) -> Value {
    let output = nodes.lab().sidestep(&["status", "--output", "json"]).expect("it runs");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// How many connections all Services have had.
fn counted(nodes: &TwoNodes) -> u64 {
    let status = status(nodes);
    let services = status["services"].as_array().expect("a list");
    services.iter().filter_map(|service| service["connections"].as_u64()).sum()
}

/// Gives the tables that an agent left another layout.
fn rewrite(nodes: &TwoNodes) {
    let rewritten = other_layout::rewrite(&nodes.lab().pin_directory().join("v1")).expect("other tables");
    for name in ["FRONTENDS", "SERVICES", "ENDPOINTS", "SOCKETS", "DATAGRAMS", "AFFINITY", "FLOWS", "NAMES"] {
        assert!(rewritten.iter().any(|one| one == name), "{name} is not among {rewritten:?}");
    }
    assert!(rewritten.len() >= 25, "{rewritten:?}");
}

/// What a conversion leaves behind: nothing.
fn left_behind(nodes: &TwoNodes) -> Vec<String> {
    let entries = fs::read_dir(nodes.lab().pin_directory().join("v1")).expect("pins");
    let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    names.filter(|name| name.contains('-') || name == "ready").collect()
}

/// ST-4: everything that the other version's tables knew is known, and nobody notices.
fn tables_of_another_version_are_converted_under_traffic(nodes: &TwoNodes) {
    let _servers = publish(nodes);
    let client = nodes.pod_here("client").expect("a pod");
    let mut agent = nodes.lab().agent().expect("an agent");
    let mut staying = Staying::begin(nodes, client.clone());
    let before = counted(nodes);
    let inside = cluster_ips()[0];
    let pressure = Pressure::paced(&client, inside.tcp, inside.udp, PAUSE);
    assert!(agent.stop().expect("it stops").success());
    rewrite(nodes);
    agent.restart(nodes.lab()).expect("restart");
    assert_eq!(left_behind(nodes), [""; 0]);
    staying.check("after the conversion");
    assert_eq!(staying.read(), inside.udp);
    assert!(counted(nodes) > before, "{before} connections before");
    let outside = node_ports()[0];
    let from_outside = Pressure::paced(nodes.outside(), outside.tcp, outside.udp, PAUSE);
    from_outside.let_pass(50);
    for pressure in [pressure, from_outside] {
        pressure.stop().assert_flawless();
    }
}

/// The programs of the other version serve until those of this one do.
#[test]
fn an_agent_that_dies_while_it_converts_leaves_tables_that_serve() {
    let nodes = two_nodes!(Variant::DIRECT);
    let _servers = publish(&nodes);
    let client = nodes.pod_here("client").expect("a pod");
    let mut agent = nodes.lab().agent().expect("an agent");
    let mut staying = Staying::begin(&nodes, client.clone());
    let way = cluster_ips()[0];
    let pressure = Pressure::paced(&client, way.tcp, way.udp, PAUSE);
    assert!(agent.stop().expect("it stops").success());
    rewrite(&nodes);
    let mut deaths = 0;
    for number in WRITES {
        let mut agent = Agent::reading(nodes.lab()).variable(VARIABLE, number.to_string());
        agent.launch(nodes.lab()).expect("an agent");
        // It lives where the conversion takes fewer writes.
        let Ok(status) = agent.wait_for_end(ALIVE) else { break };
        assert_eq!(status.signal(), Some(libc::SIGKILL), "{status}");
        deaths += 1;
        staying.check(&format!("after a death before write {number}"));
    }
    if deaths == 0 {
        skip!("the agent is a release build, which has no place to die");
    }
    assert!(deaths >= 4, "{deaths} deaths");
    agent.restart(nodes.lab()).expect("restart");
    assert_eq!(left_behind(&nodes), [""; 0]);
    staying.check("after the conversion");
    pressure.stop().assert_flawless();
}

/// From the moment when everything is converted each pin and each link counts as a write: the next agent undoes what is not
/// used yet, and else goes on.
#[test]
fn an_agent_that_dies_while_it_switches_to_other_tables_leaves_a_node_that_serves() {
    let nodes = two_nodes!(Variant::DIRECT);
    let _servers = publish(&nodes);
    let client = nodes.pod_here("client").expect("a pod");
    let mut agent = nodes.lab().agent().expect("an agent");
    let mut staying = Staying::begin(&nodes, client.clone());
    let way = cluster_ips()[0];
    let pressure = Pressure::paced(&client, way.tcp, way.udp, PAUSE);
    let mut deaths = 0;
    for number in SWITCH_WRITES {
        assert!(agent.stop().expect("it stops").success());
        rewrite(&nodes);
        let mut dying = Agent::reading(nodes.lab()).variable(VARIABLE, format!("switch-{number}"));
        dying.launch(nodes.lab()).expect("an agent");
        let Ok(status) = dying.wait_for_end(ALIVE) else { break };
        assert_eq!(status.signal(), Some(libc::SIGKILL), "{status}");
        deaths += 1;
        staying.check(&format!("after a death before write {number}"));
        agent.restart(nodes.lab()).expect("restart");
        assert_eq!(left_behind(&nodes), [""; 0], "after a death before write {number}");
        staying.check(&format!("after a restart, and a death before write {number}"));
    }
    println!("{deaths} deaths");
    if deaths == 0 {
        skip!("the agent is a release build, which has no place to die");
    }
    assert!(deaths >= 4, "{deaths} deaths");
    pressure.stop().assert_flawless();
}

/// Then the programs of the other version serve until this one has read all Services.
#[test]
fn a_table_that_cannot_be_converted_stops_no_service() {
    let nodes = two_nodes!(Variant::DIRECT);
    let _servers = publish(&nodes);
    let client = nodes.pod_here("client").expect("a pod");
    let mut agent = nodes.lab().agent().expect("an agent");
    let way = cluster_ips()[0];
    let pressure = Pressure::start(&client, way.tcp, way.udp);
    pressure.let_pass(50);
    assert!(agent.stop().expect("it stops").success());
    other_layout::forget(&nodes.lab().pin_directory().join("v1/FRONTENDS")).expect("another table");
    agent.restart(nodes.lab()).expect("restart");
    assert!(agent.log_tail().contains("cannot be converted"), "{}", agent.log_tail());
    assert_eq!(left_behind(&nodes), [""; 0]);
    pressure.let_pass(50);
    pressure.stop().assert_flawless();
}
