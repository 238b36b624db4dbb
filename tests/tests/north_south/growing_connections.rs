//! The table of connections grows while there are connections in it, and more begin.

use std::time::Duration;

use serde_json::Value;
use sidestep_tests::{
    Agent, TwoNodes, eventually, in_every_variant,
    pressure::Pressure,
    traffic::{Asker, Conversation, connect_from},
    two_nodes::{node_ports, ways_in, web},
};

in_every_variant!(connections_stay_while_their_table_grows, also_without_tcx);

/// Between requests: each UDP request holds a source port for half a minute.
const PAUSE: Duration = Duration::from_millis(2);
/// UDP flows of one datagram each: more than a quarter of the first table.
const FLOWS: usize = 2_400;

fn connections_stay_while_their_table_grows(nodes: &TwoNodes) {
    fill_under_traffic(nodes, Agent::reading(nodes.lab()));
}

/// Where the programs are filters.
fn also_without_tcx(nodes: &TwoNodes) {
    fill_under_traffic(nodes, Agent::reading(nodes.lab()).arguments(["--no-tcx"]));
}

fn fill_under_traffic(nodes: &TwoNodes, agent: Agent) {
    let servers = [nodes.backend_here("here").expect("a pod"), nodes.backend_there("there").expect("a pod")];
    nodes.publish("web", &web(), &[&servers[0], &servers[1]]).expect("manifests");
    let _agent = agent.started(nodes.lab()).expect("an agent");
    let before = room(nodes);
    assert!(before < 10_000, "{before}");
    let lines = "addr add 192.0.2.101/24 dev uplink\naddr add 2001:db8:192::101/64 dev uplink nodad\n";
    nodes.outside().namespace().ip_batch(lines).expect("addresses");
    let mut connections: Vec<_> = ways_in()
        .into_iter()
        .flat_map(|way| [way; 4])
        .map(|way| {
            let source = if way.tcp.is_ipv4() { "192.0.2.101" } else { "2001:db8:192::101" };
            let source = source.parse().expect("an address");
            let connected = nodes.outside().run(|| connect_from(source, way.tcp));
            let mut connection = Conversation::over(connected.expect("a connection")).expect("a connection");
            let answer = connection.ask().expect("an answer");
            (connection, answer)
        })
        .collect();
    let pressures = node_ports().map(|way| Pressure::paced(nodes.outside(), way.tcp, way.udp, PAUSE));
    for way in node_ports() {
        nodes.outside().run(|| {
            for number in 0..FLOWS / 2 {
                let asker = Asker::for_address(way.udp).expect("a socket");
                asker.ask(way.udp).unwrap_or_else(|error| panic!("flow {number} to {}: {error}", way.udp));
            }
        });
    }
    eventually("the table of connections is bigger", || room(nodes) >= 4 * before);
    for (connection, answer) in &mut connections {
        assert_eq!(connection.ask().expect("an answer"), *answer);
    }
    for pressure in &pressures {
        pressure.let_pass(50);
    }
    for pressure in pressures {
        pressure.stop().assert_flawless();
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
