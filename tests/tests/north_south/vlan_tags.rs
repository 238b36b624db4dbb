//! Frames with a VLAN tag: they are for the VLAN's own device.

use std::time::Duration;

use sidestep_tests::{TwoNodes, eventually, frames::FrameSender, in_every_variant, two_nodes::node_ports};

use crate::serve;

in_every_variant!(frames_of_another_vlan_are_left_alone, priority_tagged_frames_are_served);

/// The node has no such VLAN, so no server gets the frame; untagged frames are served.
fn frames_of_another_vlan_are_left_alone(nodes: &TwoNodes) {
    assert_eq!(sent(nodes, 5), 0);
}

/// Some switches and adapters tag every frame with VLAN 0, which means no VLAN, only a priority.
fn priority_tagged_frames_are_served(nodes: &TwoNodes) {
    assert_eq!(sent(nodes, 0), 2);
}

/// Sends a tagged and then an untagged datagram to each NodePort; returns how many of the tagged ones reached the
/// endpoint.
fn sent(nodes: &TwoNodes, tag: u16) -> u64 {
    let server = nodes.backend_here("here").expect("a pod");
    let _agent = serve(nodes, &[&server]);
    let mut frames = FrameSender::new(nodes).expect("a packet socket");
    let outside = nodes.outside().addresses();
    for (source, way) in outside.into_iter().zip(node_ports()) {
        frames.tagged_datagram(tag, (source, 40_000).into(), way.udp, b"tagged").expect("sent");
    }
    std::thread::sleep(Duration::from_millis(200));
    let tagged = server.udp.requests();
    for (source, way) in outside.into_iter().zip(node_ports()) {
        frames.datagram((source, 40_001).into(), way.udp, b"plain").expect("sent");
    }
    eventually("the endpoint gets the untagged frames", || server.udp.requests() == tagged + 2);
    tagged
}
