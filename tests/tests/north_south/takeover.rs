//! The agent starts beside kube-proxy's rules and connections: kube-proxy's rules keep translating their own
//! connections, and Sidestep translates new ones.

use std::{collections::BTreeSet, net::SocketAddr};

use serde_json::Value;
use sidestep_tests::{
    TwoNodes,
    cluster::{HTTP, HTTP_PORT},
    in_every_variant,
    kube_proxy::{Flavour, NodePort, load},
    manifest::{Protocol, Service},
    traffic::{Answer, Conversation, connect},
};

in_every_variant!(
    connections_of_kube_proxys_nftables_outlive_the_takeover,
    connections_of_kube_proxys_iptables_outlive_the_takeover,
);

/// Connections to each NodePort in each family: two hundred in all.
const EACH: usize = 50;
/// The NodePorts of the local endpoint and of the one on the other node.
const NUMBERS: [u16; 2] = [30_080, 30_081];
/// The client's ports, outside of those for SNAT. Within them a new connection could get the port that one of kube-proxy's,
/// which keeps its client's, has towards the same endpoint.
const CLIENT_PORTS: &str = "32768 49151";
/// Requests on each connection after the takeover.
const QUESTIONS: usize = 5;
/// New connections to each NodePort in each family.
const NEW: usize = 5;

/// ST-11, PO-23.
fn connections_of_kube_proxys_nftables_outlive_the_takeover(nodes: &TwoNodes) {
    take_over(nodes, Flavour::Nftables);
}

/// ST-11, PO-23.
fn connections_of_kube_proxys_iptables_outlive_the_takeover(nodes: &TwoNodes) {
    take_over(nodes, Flavour::Iptables);
}

struct Talk {
    client: SocketAddr,
    frontend: SocketAddr,
    conversation: Conversation,
    answer: Answer,
}

impl Talk {
    fn begin(frontend: SocketAddr) -> std::io::Result<Self> {
        let stream = connect(frontend)?;
        let client = stream.local_addr()?;
        let mut conversation = Conversation::over(stream)?;
        let answer = conversation.ask()?;
        Ok(Self { client, frontend, conversation, answer })
    }

    /// A client may use one port towards both NodePorts.
    fn ends(&self) -> (SocketAddr, SocketAddr) {
        (self.client, self.frontend)
    }

    /// Sends `questions` requests; returns the first failure, if any.
    fn go_on(&mut self, questions: usize) -> Option<String> {
        (0..questions).find_map(|number| match self.conversation.ask() {
            Ok(answer) if answer == self.answer => None,
            other => Some(format!("{} at {}, question {number}: {other:?}", self.client, self.frontend)),
        })
    }
}

fn take_over(nodes: &TwoNodes, flavour: Flavour) {
    let servers = [nodes.backend_here("here").expect("a pod"), nodes.backend_there("there").expect("a pod")];
    let mut rules = Vec::new();
    for (number, server) in NUMBERS.into_iter().zip(&servers) {
        let endpoint = |ip| NodePort { number, endpoint: SocketAddr::new(ip, HTTP_PORT) };
        rules.extend(server.place.addresses().map(endpoint));
        let name = server.place.name();
        let vip = format!("10.96.0.{}", number - 30_000);
        let service = Service::new(name, &[&vip, &format!("fd00:10:96::{}", number - 30_000)]);
        let service = service.port(HTTP, Protocol::Tcp, 80).node_port(number);
        nodes.publish(name, &service, &[server]).expect("manifests");
    }
    load(nodes.node(), flavour, &rules).expect("rules");
    let frontends = NUMBERS.map(|number| nodes.at_node(number));
    let frontends = frontends.as_flattened();

    let set_ports = || std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", CLIENT_PORTS);
    nodes.outside().run(set_ports).expect("the client's ports");
    let mut old = begin(nodes, frontends, EACH);
    assert_eq!(old.len(), 200);
    let _agent = nodes.lab().agent().expect("an agent");
    let broken: Vec<String> = old.iter_mut().filter_map(|talk| talk.go_on(QUESTIONS)).collect();
    let first = &broken[..broken.len().min(5)];
    assert!(broken.is_empty(), "{} of {} connections are broken: {first:#?}", broken.len(), old.len());

    let mut new = begin(nodes, frontends, NEW);
    let records = records(nodes);
    for talk in &new {
        assert!(records.contains(&talk.ends()), "a new connection has no record: {:?}", talk.ends());
    }
    for talk in &old {
        assert!(
            !records.contains(&talk.ends()),
            "a connection of kube-proxy's has a record: {:?}",
            talk.ends()
        );
    }
    let broken: Vec<String> =
        old.iter_mut().chain(&mut new).filter_map(|talk| talk.go_on(QUESTIONS)).collect();
    assert!(broken.is_empty(), "old and new connections: {broken:#?}");
    for server in &servers {
        let counted = connections(nodes, server.place.name());
        assert_eq!(counted, 2 * NEW as u64, "connections of {}", server.place.name());
    }
}

fn begin(nodes: &TwoNodes, frontends: &[SocketAddr], each: usize) -> Vec<Talk> {
    nodes.outside().run(|| {
        let all = frontends.iter().flat_map(|frontend| std::iter::repeat_n(*frontend, each));
        all.map(|frontend| Talk::begin(frontend).unwrap_or_else(|error| panic!("{frontend}: {error}")))
            .collect()
    })
}

/// Client and frontend of each connection that `sidestep flows` lists.
fn records(nodes: &TwoNodes) -> BTreeSet<(SocketAddr, SocketAddr)> {
    let flows = told(nodes, &["flows", "-o", "json"]);
    let address = |value: &Value| value.as_str().and_then(|text| text.parse().ok()).expect("an address");
    let flows = flows.as_array().expect("a list").iter();
    flows.map(|flow| (address(&flow["client"]), address(&flow["frontend"]))).collect()
}

/// Connections of a Service that `sidestep status` has counted, in both families.
fn connections(nodes: &TwoNodes, service: &str) -> u64 {
    let status = told(nodes, &["status", "-o", "json"]);
    let services = status["services"].as_array().expect("a list").iter();
    let named = services
        .filter(|one| one["service"].as_str().is_some_and(|name| name.contains(&format!("/{service}:"))));
    named.filter_map(|one| one["connections"].as_u64()).sum()
}

fn told(nodes: &TwoNodes, arguments: &[&str]) -> Value {
    let output = nodes.lab().sidestep(arguments).expect("it runs");
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}
