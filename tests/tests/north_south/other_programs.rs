//! Foreign programs at the devices that end the chain of programs: north-south clients are served nevertheless.

use sidestep_tests::{
    TwoNodes, eventually,
    foreign::{AtDevice, Order, Packet, Tcx},
    in_every_variant, skip,
    traffic::{Asker, ask},
    two_nodes::ways_in,
};

use crate::serve;

in_every_variant!(programs_that_end_the_chain_keep_no_packet_from_ours);

fn programs_that_end_the_chain_keep_no_packet_from_ours(nodes: &TwoNodes) {
    if !nodes.node().run(proxy_agent::dataplane::has_tcx) {
        skip!("this kernel has no TCX (6.6)");
    }
    let servers = [nodes.backend_here("here"), nodes.backend_there("there")].map(|made| made.expect("a pod"));
    let mut agent = serve(nodes, &[&servers[0], &servers[1]]);
    assert_served(nodes);
    for (round, sides) in (1..).zip([
        [Some((Tcx::Ingress, Order::First)), None],
        [None, Some((Tcx::Egress, Order::First))],
        [Some((Tcx::Ingress, Order::First)), Some((Tcx::Egress, Order::First))],
        [Some((Tcx::Ingress, Order::Last)), Some((Tcx::Egress, Order::Last))],
    ]) {
        let foreign: Vec<AtDevice> = nodes
            .uplinks()
            .into_iter()
            .flat_map(|device| sides.into_iter().flatten().map(move |side| (device, side)))
            .map(|(device, (side, order))| nodes.node().run(|| attach(device, side, order)))
            .collect();
        // Any change of the network makes the agent check its devices.
        let news = format!("addr add 198.51.100.{round}/32 dev pods\n");
        nodes.node().namespace().ip_batch(&news).expect("an address");
        eventually("clients are served", || is_served(nodes));
        assert_served(nodes);
        let problems = agent.report().expect("a report").problems;
        assert!(problems.is_empty(), "{problems:?}");
        for program in foreign {
            nodes.node().run(|| program.detach()).expect("detached");
        }
        // A new agent does not remember which programs were ahead of ours.
        agent.stop().expect("it stops");
        agent.restart(nodes.lab()).expect("restart");
    }
}

fn attach(device: &str, side: Tcx, order: Order) -> AtDevice {
    let index = nix::net::if_::if_nametoindex(device).expect("a device");
    AtDevice::attach(index, side, Packet::Pass, order).expect("attaching")
}

/// Connects to every frontend, in both families and protocols; four times each, which most likely reaches endpoints on
/// both nodes.
fn assert_served(nodes: &TwoNodes) {
    for way in ways_in().into_iter().flat_map(|way| [way; 4]) {
        nodes.outside().run(|| ask(way.tcp)).expect("an answer");
        nodes.outside().run(|| Asker::for_address(way.udp)?.ask(way.udp)).expect("an answer");
    }
}

fn is_served(nodes: &TwoNodes) -> bool {
    ways_in().into_iter().all(|way| nodes.outside().run(|| ask(way.tcp)).is_ok())
}
