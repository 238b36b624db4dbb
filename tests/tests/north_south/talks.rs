//! A Service on each node as kube-proxy serves it, and connections that its rules translate.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr, TcpStream},
};

use serde_json::Value;
use sidestep_tests::{
    TwoNodes,
    cluster::{Backend, DNS, DNS_PORT, HTTP, HTTP_PORT},
    kube_proxy::{Flavour, Proxied, load},
    manifest::{Protocol, Service},
    place::Place,
    traffic::{Answer, Conversation, connect},
};

/// The TCP and UDP NodePorts of the Service whose endpoint is on this node, and of the one on the other node.
pub(crate) const NODE_PORTS: [(u16, u16); 2] = [(30_080, 30_053), (30_081, 30_054)];

/// Makes both Services, with a pod each, writes their manifests and loads kube-proxy's rules for them.
pub(crate) fn serve(nodes: &TwoNodes, flavour: Flavour) -> [Backend; 2] {
    let (servers, rules) = publish(nodes);
    load(nodes.node(), flavour, &rules).expect("rules");
    servers
}

/// Makes both Services, and returns what kube-proxy's rules would say of them.
pub(crate) fn publish(nodes: &TwoNodes) -> ([Backend; 2], Vec<Proxied>) {
    let servers = [nodes.backend_here("here").expect("a pod"), nodes.backend_there("there").expect("a pod")];
    let mut rules = Vec::new();
    for (number, (server, (tcp, udp))) in servers.iter().zip(NODE_PORTS).enumerate() {
        let name = server.place.name();
        let (cluster_ips, load_balancer_ips) =
            (virtual_ips(CLUSTER_IP, number), virtual_ips(LOAD_BALANCER_IP, number));
        let service = Service::new(name, &cluster_ips.each_ref().map(String::as_str));
        let service = service.port(HTTP, Protocol::Tcp, 80).node_port(tcp);
        let service = service.port(DNS, Protocol::Udp, 53).node_port(udp);
        let service = load_balancer_ips.iter().fold(service, |service, ip| {
            service.load_balancer(ip.parse::<IpAddr>().expect("an address"), "VIP")
        });
        nodes.publish(name, &service, &[server]).expect("manifests");
        for (family, ip) in server.place.addresses().into_iter().enumerate() {
            let ports = [(Protocol::Tcp, tcp, 80, HTTP_PORT), (Protocol::Udp, udp, 53, DNS_PORT)];
            rules.extend(ports.map(|(protocol, node_port, port, target)| Proxied {
                protocol,
                node_port,
                at: vec![at(&cluster_ips[family], port), at(&load_balancer_ips[family], port)],
                endpoint: SocketAddr::new(ip, target),
            }));
        }
    }
    (servers, rules)
}

const CLUSTER_IP: [&str; 2] = ["10.96.0.8", "fd00:10:96::8"];
const LOAD_BALANCER_IP: [&str; 2] = ["203.0.113.8", "2001:db8:203::8"];

/// One of each family.
fn virtual_ips(begins: [&str; 2], number: usize) -> [String; 2] {
    begins.map(|begin| format!("{begin}{number}"))
}

fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().expect("an address"), port)
}

/// The ClusterIPs of both Services, with this port.
pub(crate) fn cluster_ips(port: u16) -> [SocketAddr; 4] {
    all(CLUSTER_IP, port)
}

/// The LoadBalancer IPs of both Services, with this port.
pub(crate) fn load_balancer_ips(port: u16) -> [SocketAddr; 4] {
    all(LOAD_BALANCER_IP, port)
}

fn all(begins: [&str; 2], port: u16) -> [SocketAddr; 4] {
    let [[a, b], [c, d]] = [0, 1].map(|number| virtual_ips(begins, number).map(|ip| at(&ip, port)));
    [a, b, c, d]
}

/// The TCP NodePorts of both Services at the node's addresses.
pub(crate) fn node_ports(nodes: &TwoNodes) -> [SocketAddr; 4] {
    let [[a, b], [c, d]] = NODE_PORTS.map(|(tcp, _)| nodes.at_node(tcp));
    [a, b, c, d]
}

/// A connection that has got answers.
pub(crate) struct Talk {
    pub(crate) client: SocketAddr,
    pub(crate) frontend: SocketAddr,
    conversation: Conversation,
    answer: Answer,
}

impl Talk {
    pub(crate) fn begin(frontend: SocketAddr) -> std::io::Result<Self> {
        Self::over(connect(frontend)?, frontend)
    }

    pub(crate) fn over(stream: TcpStream, frontend: SocketAddr) -> std::io::Result<Self> {
        let client = stream.local_addr()?;
        let mut conversation = Conversation::over(stream)?;
        let answer = conversation.ask()?;
        Ok(Self { client, frontend, conversation, answer })
    }

    /// A client may use one port towards both NodePorts.
    pub(crate) fn ends(&self) -> (SocketAddr, SocketAddr) {
        (self.client, self.frontend)
    }

    /// Sends `questions` requests; returns the first failure, if any.
    pub(crate) fn go_on(&mut self, questions: usize) -> Option<String> {
        (0..questions).find_map(|number| match self.conversation.ask() {
            Ok(answer) if answer == self.answer => None,
            other => Some(format!("{} at {}, question {number}: {other:?}", self.client, self.frontend)),
        })
    }
}

impl Talk {
    /// Ends it as most clients do.
    pub(crate) fn close(self) -> std::io::Result<()> {
        self.conversation.close()
    }
}

/// This many connections of a place to each frontend.
pub(crate) fn begin(client: &Place, frontends: &[SocketAddr], each: usize) -> Vec<Talk> {
    client.run(|| {
        let all = frontends.iter().flat_map(|frontend| std::iter::repeat_n(*frontend, each));
        all.map(|frontend| Talk::begin(frontend).unwrap_or_else(|error| panic!("{frontend}: {error}")))
            .collect()
    })
}

/// Has every connection send this many requests, and panics if one fails.
pub(crate) fn assert_go_on<'a>(talks: impl IntoIterator<Item = &'a mut Talk>, questions: usize, when: &str) {
    let (mut all, mut broken) = (0, Vec::new());
    for talk in talks {
        all += 1;
        broken.extend(talk.go_on(questions));
    }
    let first = &broken[..broken.len().min(5)];
    assert!(broken.is_empty(), "{when}: {} of {all} connections are broken: {first:#?}", broken.len());
}

/// Client and frontend of each connection that `sidestep flows` lists.
pub(crate) fn records(nodes: &TwoNodes) -> BTreeSet<(SocketAddr, SocketAddr)> {
    let flows = told(nodes, &["flows", "-o", "json"]);
    let address = |value: &Value| value.as_str().and_then(|text| text.parse().ok()).expect("an address");
    let flows = flows.as_array().expect("a list").iter();
    flows.map(|flow| (address(&flow["client"]), address(&flow["frontend"]))).collect()
}

/// What a command prints as JSON.
pub(crate) fn told(nodes: &TwoNodes, arguments: &[&str]) -> Value {
    let output = nodes.lab().sidestep(arguments).expect("it runs");
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}
