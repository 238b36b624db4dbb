//! The release before this one is replaced by this one under traffic. `cargo xtask upgrade` builds it.

use std::{path::PathBuf, time::Duration};

use sidestep_tests::{
    Agent, TwoNodes, in_every_variant,
    pressure::Pressure,
    skip,
    traffic::Conversation,
    two_nodes,
    two_nodes::{Variant, cluster_ips, node_ports},
};

use crate::staying::{Staying, publish};

in_every_variant!(an_upgrade_from_the_previous_release_is_not_noticed, also_without_tcx);

/// The variable that names its binary.
const VARIABLE: &str = "SIDESTEP_PREVIOUS";
const MISSING: &str =
    "SIDESTEP_PREVIOUS does not name the previous release (`cargo xtask upgrade` builds it)";
const PAUSE: Duration = Duration::from_millis(2);
/// Before which writes of the switch an agent dies: while former tables are pinned, tables take their places, programs are
/// replaced behind links, what was noted meanwhile is converted, programs at devices are replaced, and former tables go.
const WRITES: [usize; 8] = [1, 20, 40, 50, 60, 70, 80, 100];
/// An agent that dies does so within this time.
const ALIVE: Duration = Duration::from_secs(20);

fn an_upgrade_from_the_previous_release_is_not_noticed(nodes: &TwoNodes) {
    upgrade(nodes, Agent::reading(nodes.lab()));
}

/// Without programs at pods' devices, which had none before: the kernel loses packets when a device gets its `clsact` qdisc
/// (docs/north-south.md).
fn also_without_tcx(nodes: &TwoNodes) {
    let agent = Agent::reading(nodes.lab()).arguments(["--no-tcx"]);
    upgrade(nodes, agent.variable("SIDESTEP_POD_INTERFACE", "none"));
}

/// The previous release, if it was built.
fn previous() -> Option<PathBuf> {
    std::env::var_os(VARIABLE).map(PathBuf::from)
}

fn upgrade(nodes: &TwoNodes, mut agent: Agent) {
    let Some(previous) = previous() else { skip!("{MISSING}") };
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

/// What the previous release's programs noted while nobody ran, and what this one's did, is known to the next agent.
#[test]
fn an_upgrade_that_dies_is_finished_by_the_next_agent() {
    let Some(previous) = previous() else { skip!("{MISSING}") };
    let mut deaths = 0;
    for number in WRITES {
        let nodes = two_nodes!(Variant::DIRECT);
        let _servers = publish(&nodes);
        let client = nodes.pod_here("client").expect("a pod");
        let mut agent = Agent::reading(nodes.lab());
        agent.set_binary(Some(previous.clone()));
        agent.restart(nodes.lab()).expect("the previous release");
        let mut staying = Staying::begin(&nodes, client.clone());
        let [inside, outside] = [cluster_ips()[0], node_ports()[0]];
        let pressures = [
            Pressure::paced(&client, inside.tcp, inside.udp, PAUSE),
            Pressure::paced(nodes.outside(), outside.tcp, outside.udp, PAUSE),
        ];
        agent.kill().expect("kill -9");
        agent.set_binary(None);
        let mut dying =
            Agent::reading(nodes.lab()).variable("SIDESTEP_DIE_BEFORE_WRITE", format!("switch-{number}"));
        dying.launch(nodes.lab()).expect("this release");
        deaths += u32::from(dying.wait_for_end(ALIVE).is_ok());
        drop(dying);
        let mut late = Staying::from_a_pod(client.clone());
        let mut conversation = nodes.outside().run(|| Conversation::with(outside.tcp)).expect("a connection");
        let server = conversation.ask().expect("an answer");
        for pressure in &pressures {
            pressure.let_pass(50);
        }
        agent.restart(nodes.lab()).expect("this release once more");
        for (staying, begun) in [(&mut staying, "before the upgrade"), (&mut late, "after the death")] {
            staying.check(&format!("begun {begun}, which came before write {number}"));
            assert_eq!(staying.read(), inside.udp, "begun {begun}, which came before write {number}");
        }
        assert_eq!(conversation.ask().expect("an answer"), server, "a death before write {number}");
        for pressure in pressures {
            pressure.let_pass(50);
            pressure.stop().assert_flawless();
        }
    }
    println!("{deaths} deaths");
    if deaths == 0 {
        skip!("the agent is a release build, which has no place to die");
    }
    assert!(deaths >= 6, "{deaths} deaths");
}
