//! North-south traffic through TC filters, as on kernels without TCX (before 6.6).

use std::collections::BTreeSet;

use sidestep_tests::{
    Agent, TwoNodes, in_every_variant,
    traffic::{Asker, Conversation},
    two_nodes::{ways_in, web},
};

in_every_variant!(node_ports_are_served_by_filters);

/// Requests to each address: with two endpoints, one of them answers none of them once in thirty thousand runs.
const REQUESTS: usize = 16;

/// PO-4, PO-5: every address, over TCP and UDP, with an endpoint here and one there.
fn node_ports_are_served_by_filters(nodes: &TwoNodes) {
    let servers = [nodes.backend_here("here").expect("a pod"), nodes.backend_there("there").expect("a pod")];
    nodes.publish("web", &web(), &servers.each_ref()).expect("manifests");
    let agent = Agent::reading(nodes.lab()).arguments(["--no-tcx"]);
    let _agent = agent.started(nodes.lab()).expect("an agent");
    let names: BTreeSet<String> = servers.iter().map(|server| server.place.name().to_owned()).collect();
    for way in ways_in() {
        let mut answered = BTreeSet::new();
        for _ in 0..REQUESTS {
            nodes.outside().run(|| {
                let mut conversation =
                    Conversation::with(way.tcp).unwrap_or_else(|error| panic!("{way:?}: {error}"));
                answered.insert(conversation.ask().expect("an answer").server);
                let asker = Asker::for_address(way.udp).expect("a socket");
                let (answer, source) = asker.ask(way.udp).unwrap_or_else(|error| panic!("{way:?}: {error}"));
                assert_eq!(source, way.udp);
                answered.insert(answer.server);
            });
        }
        assert_eq!(answered, names, "{way:?}");
    }
}
