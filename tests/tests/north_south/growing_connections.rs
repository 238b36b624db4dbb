//! The table of connections grows, and shrinks again, while there are connections in it, and while others begin: all of them go
//! on, and none waits for a retransmission.

use std::{thread, time::Duration};

use serde_json::Value;
use sidestep_tests::{
    Agent, TwoNodes,
    cluster::Backend,
    eventually, in_every_variant,
    manifest::{Protocol, Service},
    pressure::Pressure,
    traffic::Asker,
    two_nodes::{LongLived, node_ports, web},
};

in_every_variant!(
    connections_stay_while_their_table_grows,
    also_without_tcx,
    connections_stay_while_their_table_shrinks
);

/// UDP flows of one datagram each: more than a quarter of the second table.
const FLOWS: usize = 20_000;
/// More than that has.
const MOST: &str = "262144";
/// Between requests. Source ports must be shared: 4 of 16 runs fail if both sets of programs draw from all of them.
const PAUSE: Duration = Duration::from_micros(500);
/// So that what begins takes less than an eighth of the smaller table, also where the agent takes ten seconds to start.
const FEWER: Duration = Duration::from_millis(8);
/// Between four flows, so that a table is bigger before it is full.
const PACE: Duration = Duration::from_millis(1);
/// How long flows of one datagram take room.
const FRESH: Duration = Duration::from_secs(17);
/// A SYN that was lost is sent again after a second.
const LONGEST: Duration = Duration::from_millis(900);

fn connections_stay_while_their_table_grows(nodes: &TwoNodes) {
    fill(nodes, Agent::reading(nodes.lab()));
}

/// Where the programs are filters.
fn also_without_tcx(nodes: &TwoNodes) {
    fill(nodes, Agent::reading(nodes.lab()).arguments(["--no-tcx"]));
}

/// At a restart: what filled the table takes no room any more.
fn connections_stay_while_their_table_shrinks(nodes: &TwoNodes) {
    let _servers = publish(nodes);
    let agent = Agent::reading(nodes.lab()).arguments(["--max-flows", MOST, "--conntrack-udp-timeout", "1s"]);
    let mut agent = agent.started(nodes.lab()).expect("an agent");
    let before = room(nodes);
    let mut connections = LongLived::begin(nodes, 4).expect("connections");
    fill_up(nodes);
    eventually("the table of connections has grown twice", || room(nodes) > 12 * before);
    let most = room(nodes);
    thread::sleep(FRESH);
    agent.stop().expect("it stops");
    // What begins from now on takes room, too.
    let pressures = node_ports().map(|way| Pressure::paced(nodes.outside(), way.tcp, way.udp, FEWER));
    agent.restart(nodes.lab()).expect("restart");
    // Ports that were used twice look like confirmed flows, which stay.
    eventually("the table of connections is smaller", || room(nodes) < most / 4);
    pressures[0].let_pass(50);
    connections.check().expect("they go on");
    assert_unnoticed(pressures);
}

fn assert_unnoticed(pressures: impl IntoIterator<Item = Pressure>) {
    for pressure in pressures {
        let outcome = pressure.stop();
        println!("{} requests, the longest {:?}", outcome.requests, outcome.longest);
        outcome.assert_flawless();
        assert!(outcome.longest < LONGEST, "{:?}", outcome.longest);
    }
}

/// A Service, and another one at port 30099 for those that fill the table.
fn publish(nodes: &TwoNodes) -> [Backend; 3] {
    let servers = [nodes.backend_here("here").expect("a pod"), nodes.backend_there("there").expect("a pod")];
    nodes.publish("web", &web(), &[&servers[0], &servers[1]]).expect("manifests");
    // One that has many to answer; on this node, so that its flows need no source ports.
    let sink = nodes.backend_here("sink").expect("a pod");
    let filler = Service::new("filler", &["10.96.0.11", "fd00:10:96::11"])
        .port("dns", Protocol::Udp, 53)
        .node_port(30_099);
    nodes.publish("filler", &filler, &[&sink]).expect("manifests");
    let [here, there] = servers;
    [here, there, sink]
}

fn fill(nodes: &TwoNodes, agent: Agent) {
    let _servers = publish(nodes);
    let agent = agent.arguments(["--max-flows", MOST]);
    let _agent = agent.started(nodes.lab()).expect("an agent");
    let before = room(nodes);
    assert!(before < 13_000, "{before}");
    let mut connections = LongLived::begin(nodes, 4).expect("connections");
    let pressures = node_ports().map(|way| Pressure::paced(nodes.outside(), way.tcp, way.udp, PAUSE));
    fill_up(nodes);
    eventually("the table of connections has grown twice", || room(nodes) > 12 * before);
    pressures[0].let_pass(50);
    connections.check().expect("they go on");
    assert_unnoticed(pressures);
}

/// With more than a quarter of the second table.
fn fill_up(nodes: &TwoNodes) {
    for mut to in node_ports().map(|way| way.udp) {
        to.set_port(30_099);
        nodes.outside().run(|| {
            for number in 0..FLOWS / 2 {
                let asker = Asker::for_address(to).expect("a socket");
                let sent = asker.socket().send_to(&[number.to_le_bytes()[0]], to);
                sent.unwrap_or_else(|error| panic!("flow {number} to {to}: {error}"));
                if number % 4 == 0 {
                    thread::sleep(PACE);
                }
            }
        });
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
