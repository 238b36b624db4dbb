//! A Service on each node as kube-proxy serves it, and connections and exchanges of datagrams that its rules translate.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr, TcpStream},
    process::Command,
    time::{Duration, Instant},
};

use serde_json::Value;
use sidestep_tests::{
    TwoNodes,
    cluster::{Backend, DNS, DNS_PORT, HTTP, HTTP_PORT},
    kube_proxy::{Flavour, Proxied, load},
    manifest::{Protocol, Service},
    place::Place,
    topology::CLUSTER_IPS,
    traffic::{Answer, Asker, Conversation, connect},
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
    }
    let rules = rules(&servers);
    (servers, rules)
}

/// What kube-proxy's rules would say of both Services.
pub(crate) fn rules(servers: &[Backend; 2]) -> Vec<Proxied> {
    let mut rules = Vec::new();
    for (number, (server, (tcp, udp))) in servers.iter().zip(NODE_PORTS).enumerate() {
        let (cluster_ips, load_balancer_ips) =
            (virtual_ips(CLUSTER_IP, number), virtual_ips(LOAD_BALANCER_IP, number));
        for (family, ip) in server.place.addresses().into_iter().enumerate() {
            let ports = [(HTTP, Protocol::Tcp, tcp, 80, HTTP_PORT), (DNS, Protocol::Udp, udp, 53, DNS_PORT)];
            rules.extend(ports.map(|(name, protocol, node_port, port, target)| Proxied {
                service: server.place.name().to_owned(),
                port: name,
                protocol,
                node_port,
                at: vec![at(&cluster_ips[family], port), at(&load_balancer_ips[family], port)],
                endpoint: SocketAddr::new(ip, target),
            }));
        }
    }
    rules
}

/// Rules for a Service that has no manifest.
pub(crate) fn forgotten() -> Proxied {
    let address = |text: &str| text.parse().expect("an address");
    Proxied {
        service: "forgotten".to_owned(),
        port: HTTP,
        protocol: Protocol::Tcp,
        node_port: 30_099,
        at: vec![address("10.96.0.200:80")],
        endpoint: address("10.244.1.99:8080"),
    }
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

/// The UDP NodePorts of both Services at the node's addresses.
pub(crate) fn udp_node_ports(nodes: &TwoNodes) -> [SocketAddr; 4] {
    let [[a, b], [c, d]] = NODE_PORTS.map(|(_, udp)| nodes.at_node(udp));
    [a, b, c, d]
}

/// A pod from which, as from the node, Services are routed like everything else: netfilter sees them.
pub(crate) fn client_pod(nodes: &TwoNodes) -> Place {
    let pod = nodes.pod_here("client").expect("a pod");
    let routes = CLUSTER_IPS.map(|range| format!("route del {range}\n")).concat();
    for place in [&pod, nodes.node()] {
        place.namespace().ip_batch(&routes).expect("routes");
    }
    pod
}

/// A connection that has got answers.
pub(crate) struct Talk {
    pub(crate) client: SocketAddr,
    pub(crate) frontend: SocketAddr,
    conversation: Conversation,
    answer: Answer,
}

/// An exchange of datagrams, by a connected socket, that has got answers.
pub(crate) struct Exchange {
    frontend: SocketAddr,
    asker: Asker,
    answer: Answer,
}

/// Something long-lived: it goes on with the endpoint that it has, as which client ever.
pub(crate) trait GoesOn {
    /// Asks once more; says what is wrong with the answer, if it is.
    fn ask(&mut self) -> Option<String>;
}

impl GoesOn for Talk {
    fn ask(&mut self) -> Option<String> {
        match self.conversation.ask() {
            Ok(answer) if answer == self.answer => None,
            other => Some(format!("{} at {}: {other:?}", self.client, self.frontend)),
        }
    }
}

impl GoesOn for Exchange {
    fn ask(&mut self) -> Option<String> {
        match self.asker.ask_peer() {
            Ok((answer, source)) if answer == self.answer && source == self.frontend => None,
            other => Some(format!("UDP at {}: {other:?}", self.frontend)),
        }
    }
}

impl Exchange {
    pub(crate) fn begin(frontend: SocketAddr) -> std::io::Result<Self> {
        let asker = Asker::for_address(frontend)?;
        asker.connect(frontend)?;
        let (answer, _) = asker.ask_peer()?;
        Ok(Self { frontend, asker, answer })
    }
}

impl Exchange {
    /// Asks once more; the endpoint may see another client, and the answer still comes from the frontend.
    pub(crate) fn ask_again(&mut self) -> Result<(), String> {
        match self.asker.ask_peer() {
            Ok((_, source)) if source == self.frontend => Ok(()),
            other => Err(format!("UDP at {}: {other:?}", self.frontend)),
        }
    }
}

/// This many exchanges of a place with each frontend.
pub(crate) fn exchange(client: &Place, frontends: &[SocketAddr], each: usize) -> Vec<Exchange> {
    client.run(|| {
        let all = frontends.iter().flat_map(|frontend| std::iter::repeat_n(*frontend, each));
        all.map(|frontend| Exchange::begin(frontend).unwrap_or_else(|error| panic!("{frontend}: {error}")))
            .collect()
    })
}

/// What long-lived connections and exchanges have met.
#[derive(Default)]
pub(crate) struct Ledger {
    asked: usize,
    longest: Duration,
}

impl Ledger {
    /// Asks each this many times, and panics if one has a wrong answer or none.
    pub(crate) fn go_on<'a, T: GoesOn + 'a>(
        &mut self,
        all: impl IntoIterator<Item = &'a mut T>,
        questions: usize,
        when: &str,
    ) {
        let (mut count, mut broken) = (0, Vec::new());
        for one in all {
            count += 1;
            for _ in 0..questions {
                let began = Instant::now();
                broken.extend(one.ask());
                self.longest = self.longest.max(began.elapsed());
                self.asked += 1;
            }
        }
        let first = &broken[..broken.len().min(5)];
        assert!(broken.is_empty(), "{when}: {} answers of {count} are wrong: {first:#?}", broken.len());
    }

    /// Panics if an answer took a second; prints the sum.
    pub(crate) fn close(&self, what: &str, of: usize) {
        println!(
            "{what}: {of} long-lived, broken 0; {} questions, the longest {:?}",
            self.asked, self.longest
        );
        assert!(self.longest < Duration::from_secs(1), "{what}: an answer took {:?}", self.longest);
    }
}

/// Has conntrack remember all exchanges of datagrams for as long: a busy machine may need a while until it asks again, and
/// the takeover waits until the last one is forgotten.
pub(crate) fn remember_datagrams(place: &Place) {
    place.run(|| {
        for file in ["nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream"] {
            std::fs::write(format!("/proc/sys/net/netfilter/{file}"), "40").expect("a timeout");
        }
    });
}

/// Has conntrack forget all exchanges of datagrams in a place.
pub(crate) fn forget_datagrams(place: &Place) {
    for family in ["ipv4", "ipv6"] {
        let mut command = Command::new("conntrack");
        command.args(["-D", "-p", "udp", "-f", family]);
        // It fails where there is none.
        place.run(|| command.output()).expect("conntrack runs");
    }
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

/// netfilter's rules in a place.
pub(crate) fn ruleset(place: &Place) -> String {
    let mut command = Command::new("nft");
    let output = place.run(|| command.args(["list", "ruleset"]).output()).expect("nft runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Ends connections as most clients do.
pub(crate) fn close(talks: Vec<Talk>) {
    for talk in talks {
        talk.close().expect("closed");
    }
}
