//! Tables that grow while connections from outside the node are established, and while others begin.

use std::time::Duration;

use sidestep_tests::{
    Agent, TwoNodes, eventually, in_every_variant,
    many::Many,
    pressure::Pressure,
    traffic::{Conversation, ask, connect_from},
    two_nodes::{node_ports, ways_in, web},
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
    let lines = "addr add 192.0.2.101/24 dev uplink\naddr add 2001:db8:192::101/64 dev uplink nodad\n";
    nodes.outside().namespace().ip_batch(lines).expect("addresses");
    let mut flows: Vec<_> = ways_in()
        .into_iter()
        .flat_map(|way| [way; 4])
        .map(|way| {
            let source = if way.tcp.is_ipv4() { "192.0.2.101" } else { "2001:db8:192::101" };
            let source = source.parse().expect("an address");
            let connected = nodes.outside().run(|| connect_from(source, way.tcp));
            let mut flow = Conversation::over(connected.expect("a connection")).expect("a connection");
            let answer = flow.ask().expect("an answer");
            (flow, answer)
        })
        .collect();
    for count in [1200, 3500] {
        pressures[0].let_pass(50);
        Many::write(nodes.lab(), servers[0].place.v4.into(), count).expect("manifests");
        nodes.node().run(|| eventually("the last one is served", || ask(Many::last(count)).is_ok()));
        pressures[1].let_pass(50);
        for (flow, answer) in &mut flows {
            assert_eq!(flow.ask().expect("an answer"), *answer);
        }
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
