//! The agent's end, crash, restart and removal, with established north-south connections.

use std::{fs, time::Duration};

use sidestep_tests::{
    TwoNodes, bpftool,
    cluster::Backend,
    eventually, in_every_variant,
    pressure::Pressure,
    traffic::{Asker, Conversation, ask, connect, is_refused},
    two_nodes::{LongLived, WayIn, node_ports, ways_in, web},
};

use crate::serve;

in_every_variant!(
    a_crash_and_a_restart_lose_no_packet,
    a_killed_agent_breaks_no_connection,
    a_cleanup_leaves_nothing_behind,
);

/// The pause between requests: each UDP request holds a source port for half a minute, and an endpoint has 16,384 of
/// them.
const PAUSE: Duration = Duration::from_millis(2);
const RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

/// ST-4: no request fails, and the new agent adopts the same maps and links.
fn a_crash_and_a_restart_lose_no_packet(nodes: &TwoNodes) {
    let servers = [nodes.backend_here("here").expect("a pod"), nodes.backend_there("there").expect("a pod")];
    let mut agent = serve(nodes, &[&servers[0], &servers[1]]);
    let before = bpftool::pinned_ids(nodes.lab().pin_directory()).expect("ids");
    let pressures = node_ports().map(|way| Pressure::paced(nodes.outside(), way.tcp, way.udp, PAUSE));
    let mut flows = LongLived::begin(nodes, 4).expect("connections");
    for _ in 0..2 {
        agent.kill().expect("kill -9");
        pressures[0].let_pass(100);
        agent.restart(nodes.lab()).expect("restart");
        pressures[1].let_pass(100);
        flows.check().expect("they go on");
        assert!(agent.stop().expect("it stops").success());
        pressures[1].let_pass(100);
        agent.restart(nodes.lab()).expect("restart");
    }
    assert_eq!(before, bpftool::pinned_ids(nodes.lab().pin_directory()).expect("ids"));
    for pressure in pressures {
        pressure.stop().assert_flawless();
    }
    flows.check().expect("they go on");
}

/// ST-4: established connections go on and new ones begin while no agent runs, and after the next one has started.
fn a_killed_agent_breaks_no_connection(nodes: &TwoNodes) {
    let servers = [nodes.backend_here("here").expect("a pod"), nodes.backend_there("there").expect("a pod")];
    let mut agent = serve(nodes, &[&servers[0], &servers[1]]);
    let begin = || -> Vec<_> {
        let all = ways_in().into_iter().flat_map(|way| [way; 2]);
        all.map(|way| {
            let mut flow = nodes.outside().run(|| Conversation::with(way.tcp)).expect("a connection");
            let answer = flow.ask().expect("an answer");
            (flow, answer)
        })
        .collect()
    };
    let mut flows = begin();
    agent.kill().expect("kill -9");
    flows.extend(begin());
    agent.restart(nodes.lab()).expect("restart");
    flows.extend(begin());
    for (flow, answer) in &mut flows {
        assert_eq!(flow.ask().expect("an answer"), *answer);
    }
}

/// The node is as it was before, including the one sysctl, and a new agent serves again.
fn a_cleanup_leaves_nothing_behind(nodes: &TwoNodes) {
    let server: Backend = nodes.backend_there("there").expect("a pod");
    let read = || nodes.node().run(|| fs::read_to_string(RESERVED)).expect("the reserved ports");
    nodes.node().run(|| fs::write(RESERVED, "5555")).expect("a foreign reserved port");
    let before = read();
    let mut agent = serve(nodes, &[&server]);
    assert_ne!(read(), before, "no source port is reserved");
    assert!(read().contains("5555"), "the foreign port is no longer reserved: {}", read());
    let [WayIn { tcp, udp, .. }, _] = node_ports();
    nodes.outside().run(|| ask(tcp)).expect("an answer");

    agent.stop().expect("it stops");
    let output = nodes.lab().sidestep(&["cleanup"]).expect("cleanup");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(read(), before);
    eventually("TCP is refused", || is_refused(&nodes.outside().run(|| connect(tcp))));
    let asker = nodes.outside().run(|| Asker::for_address(udp)).expect("a socket");
    asker.connect(udp).expect("connect");
    eventually("UDP is refused", || is_refused(&asker.ask_peer()));
    for device in nodes.uplinks() {
        let mut command = std::process::Command::new("tc");
        command.args(["filter", "show", "dev", device, "ingress"]);
        let output = nodes.node().run(|| command.output()).expect("the program `tc`");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{device}");
    }
    nodes.publish("web", &web(), &[&server]).expect("manifests");
    agent.restart(nodes.lab()).expect("restart");
    eventually("the new agent serves", || nodes.outside().run(|| ask(tcp)).is_ok());
}
