//! Frames with the tag of a VLAN: they are for the VLAN's own device, which is another one.

use std::time::Duration;

use sidestep_tests::{TwoNodes, eventually, frames::FrameSender, in_every_variant, two_nodes::node_ports};

use crate::serve;

in_every_variant!(a_tag_of_a_vlan_is_left_alone, a_tag_of_priority_is_none);

/// The node has no such VLAN: nobody is to get the frame, and the wire's own traffic is served all the same.
fn a_tag_of_a_vlan_is_left_alone(nodes: &TwoNodes) {
    assert_eq!(sent(nodes, 5), 0);
}

/// Some switches and adapters tag every frame with VLAN 0, which means no VLAN.
fn a_tag_of_priority_is_none(nodes: &TwoNodes) {
    assert_eq!(sent(nodes, 0), 2);
}

/// Sends a tagged datagram to each NodePort, and then one without; returns how many of the tagged ones came to the
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
    eventually("frames without a tag", || server.udp.requests() == tagged + 2);
    tagged
}
