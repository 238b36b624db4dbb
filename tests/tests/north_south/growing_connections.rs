//! The table of connections grows while there are connections in it: all of them stay.

use serde_json::Value;
use sidestep_tests::{
    Agent, TwoNodes, eventually, in_every_variant,
    traffic::{Asker, ask},
    two_nodes::{LongLived, node_ports, web},
};

in_every_variant!(connections_stay_while_their_table_grows, also_without_tcx);

/// UDP flows of one datagram each, some of them from one port: together more than a quarter of the first table.
const FLOWS: usize = 30_000;
/// More than it has.
const MOST: &str = "262144";

fn connections_stay_while_their_table_grows(nodes: &TwoNodes) {
    fill(nodes, Agent::reading(nodes.lab()));
}

/// Where the programs are filters.
fn also_without_tcx(nodes: &TwoNodes) {
    fill(nodes, Agent::reading(nodes.lab()).arguments(["--no-tcx"]));
}

fn fill(nodes: &TwoNodes, agent: Agent) {
    let servers = [nodes.backend_here("here").expect("a pod"), nodes.backend_there("there").expect("a pod")];
    nodes.publish("web", &web(), &[&servers[0], &servers[1]]).expect("manifests");
    let agent = agent.arguments(["--max-flows", MOST]);
    let _agent = agent.started(nodes.lab()).expect("an agent");
    let before = room(nodes);
    assert!(before < 70_000, "{before}");
    let mut connections = LongLived::begin(nodes, 4).expect("connections");
    for way in node_ports() {
        nodes.outside().run(|| {
            for number in 0..FLOWS / 2 {
                let asker = Asker::for_address(way.udp).expect("a socket");
                let sent = asker.socket().send_to(&[number.to_le_bytes()[0]], way.udp);
                sent.unwrap_or_else(|error| panic!("flow {number} to {}: {error}", way.udp));
            }
        });
    }
    eventually("the table of connections is bigger", || room(nodes) > 3 * before);
    connections.check().expect("they go on");
    for way in node_ports() {
        nodes.outside().run(|| (0..50).for_each(|_| drop(ask(way.tcp).expect("a new connection"))));
    }
}

/// How many connections the table has room for.
fn room(nodes: &TwoNodes) -> u64 {
    let output = nodes.lab().sidestep(&["status", "--output", "json"]).expect("it runs");
    let status: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let capacity = status["capacity"].as_array().expect("a list");
    let flows = capacity.iter().find(|table| table["table"] == "FLOWS").expect("FLOWS");
    flows["room"].as_u64().expect("a number")
}
