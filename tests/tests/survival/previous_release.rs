//! The release before this one is replaced by this one under traffic. `cargo xtask upgrade` builds it.

use std::{path::PathBuf, time::Duration};

use sidestep_tests::{
    Agent, TwoNodes, in_every_variant,
    pressure::Pressure,
    skip,
    two_nodes::{cluster_ips, node_ports},
};

use crate::staying::{Staying, publish};

in_every_variant!(an_upgrade_from_the_previous_release_is_not_noticed, also_without_tcx);

/// The variable that names its binary.
const VARIABLE: &str = "SIDESTEP_PREVIOUS";
const PAUSE: Duration = Duration::from_millis(2);

fn an_upgrade_from_the_previous_release_is_not_noticed(nodes: &TwoNodes) {
    upgrade(nodes, Agent::reading(nodes.lab()));
}

fn also_without_tcx(nodes: &TwoNodes) {
    upgrade(nodes, Agent::reading(nodes.lab()).arguments(["--no-tcx"]));
}

fn upgrade(nodes: &TwoNodes, mut agent: Agent) {
    let Some(previous) = std::env::var_os(VARIABLE).map(PathBuf::from) else {
        skip!("{VARIABLE} does not name the previous release (`cargo xtask upgrade` builds it)");
    };
    let _servers = publish(nodes);
    let client = nodes.pod_here("client").expect("a pod");
    agent.set_binary(Some(previous));
    agent.restart(nodes.lab()).expect("the previous release");
    let mut staying = Staying::begin(nodes, client.clone());
    let [inside, outside] = [cluster_ips()[0], node_ports()[0]];
    let pressures = [
        Pressure::paced(&client, inside.tcp, inside.udp, PAUSE),
        Pressure::paced(nodes.outside(), outside.tcp, outside.udp, PAUSE),
    ];
    for pressure in &pressures {
        pressure.let_pass(100);
    }
    agent.kill().expect("kill -9");
    agent.set_binary(None);
    agent.restart(nodes.lab()).expect("this release");
    staying.check("after the upgrade");
    assert_eq!(staying.read(), inside.udp);
    for pressure in &pressures {
        pressure.let_pass(100);
    }
    agent.kill().expect("kill -9");
    agent.restart(nodes.lab()).expect("this release once more");
    staying.check("after a restart");
    for pressure in pressures {
        pressure.stop().assert_flawless();
    }
}
