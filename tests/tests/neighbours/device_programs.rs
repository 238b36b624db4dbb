//! Programs of others at the devices: as XDP, by TCX before and after ours, and as filters of a `clsact` qdisc. They
//! stay, see packets, and go on through start, crash, restart, changes of devices, and cleanup.

use std::fs;

use sidestep_tests::{
    Agent, TwoNodes, devices, eventually,
    foreign::counted::{Counted, DeviceHook},
    skip,
    traffic::{Asker, ask},
    two_nodes,
    two_nodes::{Variant, cluster_ips, node_ports, web},
};

#[test]
fn programs_at_devices_stay_and_see_packets_beside_tcx_links() {
    let nodes = two_nodes!(Variant::DIRECT);
    if !nodes.node().run(proxy_agent::dataplane::has_tcx) {
        skip!("this kernel has no TCX (6.6)");
    }
    let hooks = [
        DeviceHook::Xdp,
        DeviceHook::Tcx { incoming: true, first: true },
        DeviceHook::Tcx { incoming: true, first: false },
        DeviceHook::Tcx { incoming: false, first: true },
        DeviceHook::Tcx { incoming: false, first: false },
        DeviceHook::Filter { incoming: true },
        DeviceHook::Filter { incoming: false },
    ];
    stay_and_see_packets(&nodes, Agent::reading(nodes.lab()), &hooks);
}

#[test]
fn programs_at_devices_stay_and_see_packets_beside_filters() {
    let nodes = two_nodes!(Variant::DIRECT);
    let hooks =
        [DeviceHook::Xdp, DeviceHook::Filter { incoming: true }, DeviceHook::Filter { incoming: false }];
    stay_and_see_packets(&nodes, Agent::reading(nodes.lab()).arguments(["--no-tcx"]), &hooks);
}

fn stay_and_see_packets(nodes: &TwoNodes, agent: Agent, hooks: &[DeviceHook]) {
    let server = nodes.backend_here("here").expect("a pod");
    nodes.publish("web", &web(), &[&server]).expect("manifests");
    let before = attach(nodes, "uplink", hooks, "earlier");
    let mut agent = agent.started(nodes.lab()).expect("an agent");
    assert_served(nodes);
    assert_see(nodes, &before, true);

    let after = attach(nodes, "uplink", hooks.get(1..).expect("more"), "later");
    let both = || before.iter().chain(&after);
    assert_served(nodes);
    assert_see(nodes, both(), true);
    agent.kill().expect("kill -9");
    assert_see(nodes, both(), true);
    agent.restart(nodes.lab()).expect("restart");
    assert_see(nodes, both(), true);

    // A device that has programs of others when it becomes an uplink; then it is none any more, and goes.
    nodes
        .node()
        .namespace()
        .ip_batch("link add extra type veth peer name far\nlink set far up\n")
        .expect("a device");
    let at_extra = attach(nodes, "extra", hooks, "extra");
    let count = filters(nodes, "extra");
    let lines =
        "addr add 198.18.5.1/24 dev extra\nlink set extra up\nroute add 198.18.6.0/24 via 198.18.5.2\n";
    nodes.node().namespace().ip_batch(lines).expect("an uplink");
    let is_served = || devices::names(nodes.lab()).iter().any(|name| name == "extra");
    eventually("the new uplink has our programs", is_served);
    assert_see(nodes, both(), true);
    nodes
        .node()
        .namespace()
        .ip_batch("route del 198.18.6.0/24\naddr del 198.18.5.1/24 dev extra\n")
        .expect("none");
    agent.stop().expect("it stops");
    agent.restart(nodes.lab()).expect("restart");
    eventually("our programs are gone from it", || !is_served());
    assert_eq!(filters(nodes, "extra"), count, "filters of others");
    drop(at_extra);
    nodes.node().namespace().ip_batch("link del extra\n").expect("deleted");
    assert_served(nodes);
    assert_see(nodes, both(), true);

    agent.stop().expect("it stops");
    assert!(nodes.lab().sidestep(&["cleanup"]).expect("cleanup runs").status.success());
    assert_see(nodes, both(), false);
}

/// One for each hook.
fn attach(nodes: &TwoNodes, device: &str, hooks: &[DeviceHook], name: &str) -> Vec<Counted> {
    let pins = nodes.lab().pin_directory();
    fs::create_dir_all(pins).expect("a directory for pins");
    let attach = |hook| Counted::at_device(device, hook, pins, name).expect("attaching");
    hooks.iter().map(|hook| nodes.node().run(|| attach(*hook))).collect()
}

/// The filters at both sides of a device.
fn filters(nodes: &TwoNodes, device: &str) -> (usize, usize) {
    devices::filters(nodes.lab(), device)
}

fn assert_served(nodes: &TwoNodes) {
    for way in node_ports().into_iter().chain(cluster_ips()) {
        eventually("an answer", || nodes.outside().run(|| ask(way.tcp)).is_ok());
        nodes.outside().run(|| Asker::for_address(way.udp)?.ask(way.udp)).expect("an answer");
    }
}

/// Each sees the packets of a connection from outside.
fn assert_see<'a>(nodes: &TwoNodes, programs: impl IntoIterator<Item = &'a Counted>, served: bool) {
    let programs: Vec<&Counted> = programs.into_iter().collect();
    let before: Vec<u64> = programs.iter().map(|program| program.count()).collect();
    let answer = nodes.outside().run(|| ask(node_ports()[0].tcp));
    assert_eq!(answer.is_ok(), served, "{answer:?}");
    let after: Vec<u64> = programs.iter().map(|program| program.count()).collect();
    assert!(before.iter().zip(&after).all(|(before, after)| after > before), "{before:?} {after:?}");
}
