//! Tables that grow while connections from outside the node are established, and while others begin.

use std::time::Duration;

use sidestep_tests::{
    Agent, TwoNodes, eventually, in_every_variant,
    many::Many,
    pressure::Pressure,
    traffic::ask,
    two_nodes::{LongLived, node_ports, web},
};

in_every_variant!(bigger_tables_keep_every_connection, without_tcx_too);

/// Between requests: each UDP request holds a source port for half a minute.
const PAUSE: Duration = Duration::from_millis(2);

/// The programs at all devices follow the bigger tables, with the records of the connections that there are.
fn bigger_tables_keep_every_connection(nodes: &TwoNodes) {
    grow_under_traffic(nodes, Agent::reading(nodes.lab()));
}

/// Where the programs are filters.
fn without_tcx_too(nodes: &TwoNodes) {
    grow_under_traffic(nodes, Agent::reading(nodes.lab()).arguments(["--no-tcx"]));
}

fn grow_under_traffic(nodes: &TwoNodes, agent: Agent) {
    let servers = [nodes.backend_here("here").expect("a pod"), nodes.backend_there("there").expect("a pod")];
    nodes.publish("web", &web(), &[&servers[0], &servers[1]]).expect("manifests");
    let _agent = agent.started(nodes.lab()).expect("an agent");
    let pressures = node_ports().map(|way| Pressure::paced(nodes.outside(), way.tcp, way.udp, PAUSE));
    let mut flows = LongLived::begin(nodes, 4).expect("connections");
    for count in [1200, 3500] {
        pressures[0].let_pass(50);
        Many::write(nodes.lab(), servers[0].place.v4.into(), count).expect("manifests");
        nodes.node().run(|| eventually("the last one is served", || ask(Many::last(count)).is_ok()));
        pressures[1].let_pass(50);
        flows.check().expect("they go on");
    }
    // Only the bigger tables have it.
    nodes.publish("web", &web(), &[&servers[1]]).expect("manifests");
    let [way, _] = node_ports();
    eventually("packets get the new endpoints", || {
        (0..50).all(|_| nodes.outside().run(|| ask(way.tcp)).is_ok_and(|answer| answer.server == "there"))
    });
    for pressure in pressures {
        pressure.stop().assert_flawless();
    }
}
