//! What gets no endpoint is refused at once, as netfilter does it.

use sidestep_tests::{
    TwoNodes, eventually, in_every_variant,
    traffic::assert_refused,
    two_nodes::{WayIn, cluster_ips, ways_in, web},
};

use crate::{ask, client, serve};

in_every_variant!(a_service_without_endpoints_refuses, other_ports_of_a_cluster_ip_refuse);

/// PO-1; a new endpoint is used at once.
fn a_service_without_endpoints_refuses(nodes: &TwoNodes) {
    let client = client(nodes, "client");
    let _agent = serve(nodes, &[]);
    for way in ways_in() {
        client.run(|| assert_refused(way.tcp, way.udp)).expect("sockets");
    }
    let server = nodes.backend_there("there").expect("a pod");
    nodes.publish("web", &web(), &[&server]).expect("manifests");
    eventually("the new endpoint answers", || ways_in().into_iter().all(|way| ask(&client, way).is_ok()));
}

/// PO-13.
fn other_ports_of_a_cluster_ip_refuse(nodes: &TwoNodes) {
    let server = nodes.backend_here("here").expect("a pod");
    let client = client(nodes, "client");
    let _agent = serve(nodes, &[&server]);
    for WayIn { tcp, udp, .. } in cluster_ips() {
        let (tcp, udp) = ((tcp.ip(), 81).into(), (udp.ip(), 54).into());
        client.run(|| assert_refused(tcp, udp)).expect("sockets");
    }
}
