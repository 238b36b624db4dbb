//! Datagrams larger than a packet, fragmented in both directions.

use sidestep_tests::{
    TwoNodes, cluster::Backend, in_every_variant, traffic::echo_datagrams, two_nodes::ways_in,
};

use crate::serve;

in_every_variant!(large_datagrams_reach_an_endpoint_here, large_datagrams_reach_an_endpoint_on_another_node);

fn large_datagrams_reach_an_endpoint_here(nodes: &TwoNodes) {
    answered(nodes, &nodes.backend_here("local").expect("a pod"));
}

fn large_datagrams_reach_an_endpoint_on_another_node(nodes: &TwoNodes) {
    answered(nodes, &nodes.backend_there("remote").expect("a pod"));
}

fn answered(nodes: &TwoNodes, server: &Backend) {
    let _agent = serve(nodes, &[server]);
    for way in ways_in() {
        let echoed = nodes.outside().run(|| echo_datagrams(way.udp));
        echoed.unwrap_or_else(|error| panic!("{way:?}: {error}"));
    }
}
