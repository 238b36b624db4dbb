//! Datagrams that are fragmented, and transfers, in both directions.

use sidestep_tests::{
    TwoNodes,
    cluster::{Backend, HTTP_PORT},
    eventually, in_every_variant,
    traffic::{EchoServer, echo_datagrams, echo_through},
    two_nodes::{cluster_ips, ways_in, web},
};

use crate::{agent, client, serve};

in_every_variant!(
    large_datagrams_reach_an_endpoint_here,
    large_datagrams_reach_an_endpoint_on_the_other_node,
    megabytes_pass_in_both_directions,
);

fn large_datagrams_reach_an_endpoint_here(nodes: &TwoNodes) {
    echoed(nodes, &nodes.backend_here("here").expect("a pod"));
}

fn large_datagrams_reach_an_endpoint_on_the_other_node(nodes: &TwoNodes) {
    echoed(nodes, &nodes.backend_there("there").expect("a pod"));
}

fn echoed(nodes: &TwoNodes, server: &Backend) {
    let client = client(nodes, "client");
    let _agent = serve(nodes, &[server]);
    for way in ways_in() {
        let echoed = client.run(|| echo_datagrams(way.udp));
        echoed.unwrap_or_else(|error| panic!("{way:?}: {error}"));
    }
}

/// With segments as large as the devices make them.
fn megabytes_pass_in_both_directions(nodes: &TwoNodes) {
    let pods = [nodes.pod_here("here").expect("a pod"), nodes.pod_there("there").expect("a pod")];
    let client = client(nodes, "client");
    let _agent = agent(nodes);
    for pod in &pods {
        let _server = EchoServer::start(pod, HTTP_PORT).expect("a server");
        nodes.publish_places("web", &web(), &[pod]).expect("manifests");
        for way in cluster_ips() {
            eventually("the server answers", || client.run(|| echo_through(way.tcp, 10)).is_ok());
            let sent = client.run(|| echo_through(way.tcp, 4 << 20));
            sent.unwrap_or_else(|error| panic!("{} at {way:?}: {error}", pod.name()));
        }
    }
}
