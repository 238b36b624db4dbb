//! Megabytes in both directions, with and without the devices' segmentation and checksum offload.

use sidestep_tests::{
    Place, TwoNodes,
    cluster::HTTP_PORT,
    in_every_variant,
    offload::{Offload, switch},
    traffic::{EchoServer, echo_through},
    two_nodes::{Routing, ways_in, web},
};

in_every_variant!(
    megabytes_pass_with_the_devices_offloads,
    megabytes_pass_without_checksum_offload,
    megabytes_pass_without_segmentation_offload,
);

const BYTES: usize = 4 << 20;

fn megabytes_pass_with_the_devices_offloads(nodes: &TwoNodes) {
    pass(nodes, &[]);
}

/// Packets reach the programs with complete checksums.
fn megabytes_pass_without_checksum_offload(nodes: &TwoNodes) {
    pass(nodes, &[Offload::TransmitChecksum, Offload::ReceiveChecksum]);
}

fn megabytes_pass_without_segmentation_offload(nodes: &TwoNodes) {
    pass(nodes, &[Offload::GenericSegmentation, Offload::TcpSegmentation, Offload::GenericReceive]);
}

fn pass(nodes: &TwoNodes, off: &[Offload]) {
    let (here, there) = (nodes.pod_here("here").expect("a pod"), nodes.pod_there("there").expect("a pod"));
    let mut devices: Vec<(&Place, &str)> = vec![
        (nodes.outside(), "uplink"),
        (nodes.node(), "uplink"),
        (nodes.other_node(), "uplink"),
        (&here, "eth0"),
        (&there, "eth0"),
    ];
    if nodes.variant().routing == Routing::Vxlan {
        devices.extend([(nodes.node(), "flannel.1"), (nodes.other_node(), "flannel.1")]);
    }
    for (place, device) in devices {
        for offload in off {
            place.run(|| switch(device, *offload, false)).unwrap_or_else(|error| panic!("{device}: {error}"));
        }
    }
    for server in [&here, &there] {
        let _server = EchoServer::start(server, HTTP_PORT).expect("a server");
        nodes.publish_places("web", &web(), &[server]).expect("manifests");
        let _agent = nodes.lab().agent().expect("an agent");
        for way in ways_in() {
            let echoed = nodes.outside().run(|| echo_through(way.tcp, BYTES));
            echoed.unwrap_or_else(|error| panic!("{way:?} to {}: {error}", server.name()));
        }
    }
}
