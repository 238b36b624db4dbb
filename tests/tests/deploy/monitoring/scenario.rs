//! An agent that has met every event whose metric appears only after the event.

use std::{net::UdpSocket, time::Duration};

use sidestep_tests::{
    Agent, Place, TwoNodes,
    cluster::{Backend, DNS, DNS_PORT, HTTP, at},
    eventually::wait_for,
    manifest::{Protocol, Service},
    traffic::{ask, is_refused},
};

use super::prometheus::get;

/// A Service that serves, one whose endpoint is silent, one without endpoints, and one with only remote endpoints and
/// policy Local.
pub(super) struct Scenario<'a> {
    nodes: &'a TwoNodes,
    _agent: Agent,
    client: Place,
    _web: Backend,
    _silent: UdpSocket,
}

impl<'a> Scenario<'a> {
    /// Sets the scenario up, and waits until the metrics show it.
    pub(super) fn start(nodes: &'a TwoNodes) -> Self {
        let service = |name: &str, ip: &str| Service::new(name, &[ip]).port(HTTP, Protocol::Tcp, 80);
        let web = nodes.backend_here("web").expect("a pod");
        let sticky = service("web", "10.96.0.10").node_port(30080).client_ip_affinity(600);
        nodes.publish("web", &sticky, &[&web]).expect("manifests");
        nodes.publish("empty", &service("empty", "10.96.0.11").node_port(30081), &[]).expect("manifests");
        let there = nodes.pod_there("there").expect("a pod");
        let local = service("elsewhere", "10.96.0.12").internal_traffic_local();
        nodes.publish_places("elsewhere", &local, &[&there]).expect("manifests");
        let agent = nodes.lab().agent().expect("an agent");
        // A single change, after the complete list.
        let silent = nodes.pod_here("silent").expect("a pod");
        let dns = Service::new("silent", &["10.96.0.13"]).port(DNS, Protocol::Udp, 53).node_port(30053);
        nodes.publish_places("silent", &dns, &[&silent]).expect("manifests");
        let socket = silent.run(|| UdpSocket::bind(("0.0.0.0", DNS_PORT))).expect("a socket");
        let client = nodes.pod_here("client").expect("a pod");
        let scenario = Self { nodes, _agent: agent, client, _web: web, _silent: socket };
        let told = wait_for(Duration::from_secs(20), "the metrics show every event", || {
            scenario.ask();
            let metrics = scenario.metrics();
            let told = ["sidestep_service_unanswered{", "sync_partial_proxy_rules_duration_seconds_count{"];
            told.iter().all(|part| metrics.contains(part))
        });
        told.unwrap_or_else(|error| panic!("{error}:\n{}", scenario.metrics()));
        scenario
    }

    /// Has a client use every Service once.
    pub(super) fn ask(&self) {
        self.client.run(|| {
            ask(at("10.96.0.10:80")).expect("an answer");
            assert!(is_refused(&ask(at("10.96.0.11:80"))));
            assert!(is_refused(&ask(at("10.96.0.12:80"))));
        });
        let [web, silent] = [30080, 30053].map(|port| self.nodes.at_node(port)[0]);
        self.nodes.outside().run(|| {
            ask(web).expect("an answer");
            let socket = UdpSocket::bind(("0.0.0.0", 0)).expect("a socket");
            socket.send_to(b"who?", silent).expect("sent");
        });
        for path in ["/healthz", "/livez"] {
            self.node_gets(10256, path);
        }
    }

    /// The response to a scrape on the node.
    pub(super) fn metrics(&self) -> String {
        self.node_gets(10249, "/metrics")
    }

    fn node_gets(&self, port: u16, path: &str) -> String {
        self.nodes.node().run(|| get(([127, 0, 0, 1], port), path)).expect("an answer")
    }
}
