//! Restarts in a row leave nothing behind, in the kernel or in files, and no agent is larger than the one before it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::Value;
use sidestep_tests::{
    Agent, TwoNodes, bpftool,
    pressure::Pressure,
    traffic::Conversation,
    two_nodes,
    two_nodes::{Variant, cluster_ips, node_ports, web},
};

/// How many restarts, if `SIDESTEP_RESTARTS` does not say so. One takes half a second where the agent is not optimized.
const RESTARTS: usize = 40;
/// Before the first look: what an agent needs the first time.
const WARM: usize = 4;
/// By how much the last agents' own memory may exceed the first ones', in KiB. It varies by 60 from one to the
/// next.
const SLACK: u64 = 512;
/// How many agents are looked at at the beginning, and at the end.
const LOOKED_AT: usize = 5;

/// What must not grow.
#[derive(PartialEq, Eq, Debug)]
struct Left {
    /// The pinned maps and links, with the kernel's numbers for them; 0 for those that grow with connections.
    pins: BTreeMap<String, u64>,
    /// Programs that use the pinned maps.
    programs: usize,
    /// Maps that those programs use.
    maps: usize,
    /// Files of the run directory.
    files: BTreeSet<String>,
    /// The agent's descriptors.
    descriptors: usize,
}

/// ST-4: killed and stopped in turn, under traffic from a pod and from outside: the same maps and links stay, and so do
/// the connections.
#[test]
fn many_restarts_in_a_row_leave_nothing_behind() {
    let nodes = two_nodes!(Variant::DIRECT);
    let restarts =
        std::env::var("SIDESTEP_RESTARTS").map_or(RESTARTS, |text| text.parse().expect("a number"));
    let client = nodes.pod_here("client").expect("a pod");
    let endpoints =
        [nodes.backend_here("here").expect("a pod"), nodes.backend_there("there").expect("a pod")];
    nodes.publish("web", &web(), &endpoints.iter().collect::<Vec<_>>()).expect("manifests");
    for number in 1..=20 {
        let other =
            sidestep_tests::cluster::service(&format!("other-{number}"), &[&format!("10.96.3.{number}")]);
        nodes.publish(&format!("other-{number}"), &other, &[&endpoints[0]]).expect("manifests");
    }
    let mut agent = nodes.lab().agent().expect("an agent");
    let pause = Duration::from_millis(2);
    let [inside, outside] = [cluster_ips()[0], node_ports()[0]];
    let pressures = [
        Pressure::paced(&client, inside.tcp, inside.udp, pause),
        Pressure::paced(nodes.outside(), outside.tcp, outside.udp, pause),
    ];
    let converse = |address| Conversation::with(address).expect("a connection");
    let mut staying: Vec<Conversation> = (0..20)
        .map(|number| match number % 2 {
            0 => client.run(|| converse(inside.tcp)),
            _ => nodes.outside().run(|| converse(outside.tcp)),
        })
        .collect();
    let first: Vec<_> = staying.iter_mut().map(|one| one.ask().expect("an answer")).collect();

    let start = Instant::now();
    for _ in 0..WARM {
        restart(&mut agent, 0, &nodes);
    }
    let before = left(&nodes, &agent);
    assert!(before.programs > 10 && before.pins.len() > 20, "too little to look at: {before:?}");
    let mut memory = Vec::new();
    for number in 0..restarts {
        restart(&mut agent, number, &nodes);
        if number < LOOKED_AT || restarts <= number + LOOKED_AT {
            memory.push(agent.settled_memory().expect("its memory"));
        }
    }
    eprintln!("{restarts} restarts: {:.1} s; own memory in KiB: {memory:?}", start.elapsed().as_secs_f32());
    assert_eq!(left(&nodes, &agent), before);
    let (early, late) = memory.split_at(LOOKED_AT);
    // One may be looked at while it loads programs on a bigger table of connections.
    let median = |some: &[u64]| {
        let mut some = some.to_vec();
        some.sort_unstable();
        some[some.len() / 2]
    };
    assert!(median(late) <= median(early) + SLACK, "an agent's own memory grew: {memory:?} KiB");
    for (one, first) in staying.iter_mut().zip(first) {
        assert_eq!(one.ask().expect("the connection stays"), first);
    }
    for pressure in pressures {
        pressure.stop().assert_flawless();
    }
}

fn restart(agent: &mut Agent, number: usize, nodes: &TwoNodes) {
    if number.is_multiple_of(2) {
        agent.kill().expect("kill -9");
    } else {
        assert!(agent.stop().expect("it stops").success());
    }
    agent.restart(nodes.lab()).expect("restart");
}

fn left(nodes: &TwoNodes, agent: &Agent) -> Left {
    let mut pins = bpftool::pinned_ids(nodes.lab().pin_directory()).expect("ids");
    let ours: BTreeSet<u64> =
        pins.iter().filter(|(path, _)| !path.contains("/links/")).map(|(_, id)| *id).collect();
    let shown = bpftool::json(&["prog", "show"]).expect("programs");
    let maps_of = |program: &Value| -> BTreeSet<u64> {
        program["map_ids"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect()
    };
    let programs: Vec<BTreeSet<u64>> = shown
        .as_array()
        .into_iter()
        .flatten()
        .map(maps_of)
        .filter(|maps| maps.intersection(&ours).next().is_some())
        .collect();
    let of_connections = ["/FLOWS", "/FLOW_TAGS", "/FLOW_USES", "/SOURCE_PORTS"];
    pins.iter_mut()
        .filter(|(path, _)| of_connections.iter().any(|name| path.ends_with(name)))
        .for_each(|(_, id)| *id = 0);
    Left {
        maps: programs.iter().flatten().collect::<BTreeSet<_>>().len(),
        programs: programs.len(),
        pins,
        files: names(&nodes.lab().run_directory()),
        descriptors: agent.descriptors().expect("its descriptors"),
    }
}

fn names(directory: &Path) -> BTreeSet<String> {
    let entries =
        fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").file_name());
    entries.map(|name| name.to_string_lossy().into_owned()).collect()
}
