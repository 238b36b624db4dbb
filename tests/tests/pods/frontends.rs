//! A pod without a socket hook reaches every kind of frontend, with the endpoint here, on the other node, and itself.

use std::net::IpAddr;

use sidestep_tests::{
    TwoNodes,
    cluster::Backend,
    in_every_variant, in_variant,
    topology::{GATEWAY_V4, GATEWAY_V6},
    two_nodes::ways_in,
};

use crate::{assert_served, by_packets, client, serve};

/// Only without rules that forward for the pods' ranges alone.
mod a_pod_without_a_bridge_reaches_every_frontend {
    super::in_variant!(a_pod_without_a_bridge_reaches_every_frontend, direct, DIRECT);
}

in_every_variant!(
    every_frontend_leads_to_an_endpoint_here,
    every_frontend_leads_to_an_endpoint_on_the_other_node,
    a_pod_that_is_its_own_endpoint_reaches_itself,
);

/// The endpoint sees the client itself.
fn every_frontend_leads_to_an_endpoint_here(nodes: &TwoNodes) {
    let server = nodes.backend_here("here").expect("a pod");
    let client = client(nodes, "client");
    let _agent = serve(nodes, &[&server]);
    for way in ways_in() {
        assert_served(&client, way, "here", |ip| client.addresses().contains(&ip));
    }
}

/// The endpoint sees the client itself, unless the CNI masquerades.
fn every_frontend_leads_to_an_endpoint_on_the_other_node(nodes: &TwoNodes) {
    let server = nodes.backend_there("there").expect("a pod");
    let client = client(nodes, "client");
    let _agent = serve(nodes, &[&server]);
    for way in ways_in() {
        assert_served(&client, way, "there", |ip| client.addresses().contains(&ip));
    }
    let flows = nodes.lab().sidestep(&["flows", "-o", "json"]).expect("it runs");
    let flows: Vec<serde_json::Value> = serde_json::from_slice(&flows.stdout).expect("JSON");
    assert!(flows.len() >= ways_in().len() * 2, "{flows:?}");
    assert!(flows.iter().all(|flow| flow["source"].is_null()), "nothing is masqueraded: {flows:?}");
    let from_a_pod = |flow: &serde_json::Value| flow["ofPod"] == true && flow["device"].is_string();
    assert!(flows.iter().all(from_a_pod), "they came out of a pod: {flows:?}");
}

/// PO-22: it sees an address of the node's.
fn a_pod_that_is_its_own_endpoint_reaches_itself(nodes: &TwoNodes) {
    let server: Backend = nodes.backend_here("itself").expect("a pod");
    let client = by_packets(nodes, &server.place);
    let _agent = serve(nodes, &[&server]);
    let mut own = nodes.node().addresses().to_vec();
    own.extend(nodes.preferred_sources());
    own.extend([IpAddr::from(GATEWAY_V4), IpAddr::from(GATEWAY_V6)]);
    for way in ways_in() {
        assert_served(&client, way, "itself", |ip| own.contains(&ip));
    }
}

/// As with Calico: the node has a route to each pod.
fn a_pod_without_a_bridge_reaches_every_frontend(nodes: &TwoNodes) {
    let client = nodes.routed_pod("routed").expect("a pod");
    let itself = Backend::start(client.clone()).expect("servers");
    let servers = [nodes.backend_here("here").expect("a pod"), nodes.backend_there("there").expect("a pod")];
    for server in servers.iter().chain([&itself]) {
        let _agent = serve(nodes, &[server]);
        let is_itself = server.place.name() == client.name();
        for way in ways_in() {
            assert_served(&client, way, server.place.name(), |ip| {
                client.addresses().contains(&ip) != is_itself
            });
        }
    }
}
