//! The scenario that every program runs through: requests, then another endpoint in place of the first one, then
//! `kill -9` of the agent.

use std::{
    fmt::Display,
    net::{IpAddr, Ipv4Addr},
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::Result;
use sidestep_tests::{
    Agent, Lab,
    cluster::{Backend, Cluster, DNS, service, slice},
    container::{Container, Process},
    manifest::{EndpointSlice, Protocol, Service},
    name_server::{self, NameServer, Zone},
    skip,
};

/// The ClusterIP of the Service `dns`: name servers, over UDP and TCP.
pub(crate) const NAMES: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 0, 53));
/// Its ClusterIP in IPv6.
pub(crate) const NAMES_V6: &str = "fd00:10:96::53";
/// The ClusterIP of the Service `web`: HTTP at TCP port 80, and the servers of [`Backend`] at UDP port 53.
pub(crate) const WEB: &str = "10.96.0.10";
const WEB_V6: &str = "fd00:10:96::10";
/// The ClusterIP of the Service `global`, with the endpoints of `web`: no private address, as `getaddrinfo` sorts those last.
const GLOBAL_V6: &str = "2001:db8:96::10";
/// A Service with UDP port 53, without endpoints.
pub(crate) const EMPTY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 0, 99));
/// The ClusterIP of the Service for the servers that a test starts in the pods, see [`Trial::with_servers`].
pub(crate) const OWN: &str = "10.96.0.60";

const DNS_PORTS: &[(Protocol, u16)] =
    &[(Protocol::Udp, name_server::PORT), (Protocol::Tcp, name_server::PORT)];

/// Longest time until a program gets answers from the new endpoint.
const RECOVERY: Duration = Duration::from_secs(5);
/// Longest wait for a line of a process that prints many a second.
const LINE: Duration = Duration::from_secs(1);
/// Number of requests in each part of the scenario.
const REQUESTS: usize = 3;

/// A lab with an agent, a client and two pods. One of them is the endpoint of every Service, first `pod-0`.
///
/// Processes stop before the pods that they run in, so the cluster is the last field.
pub(crate) struct Trial {
    processes: Vec<Process>,
    pub(crate) agent: Agent,
    servers: Vec<Servers>,
    own_ports: Vec<(Protocol, u16)>,
    /// The pod in which the program runs.
    pub(crate) client: Container,
    pub(crate) cluster: Cluster,
}

/// What a pod runs beside the servers of [`Backend`].
struct Servers {
    _names: NameServer,
    _own: Vec<Process>,
}

impl Trial {
    /// Starts the lab; `None` in a test that has to be skipped.
    pub(crate) fn start() -> Option<Self> {
        Self::with_servers(&[], |_| Ok(Vec::new()))
    }

    /// Starts the lab with processes of each pod, which the Service [`OWN`] leads to at these ports.
    pub(crate) fn with_servers(
        own_ports: &[(Protocol, u16)],
        own: impl Fn(&Container) -> Result<Vec<Process>>,
    ) -> Option<Self> {
        if let Some(reason) = skip::missing() {
            skip::announce(&reason);
            return None;
        }
        let trial = Lab::new().and_then(|lab| Self::on(Cluster::new(lab, 2)?, own_ports, own));
        Some(trial.expect("a lab"))
    }

    fn on(
        cluster: Cluster,
        own_ports: &[(Protocol, u16)],
        own: impl Fn(&Container) -> Result<Vec<Process>>,
    ) -> Result<Self> {
        cluster.route_services_out()?;
        let client = Container::new(&cluster.lab, &cluster.client, &[NAMES])?;
        let zone = zone();
        let servers = cluster.backends.iter().map(|Backend { place, .. }| {
            let own = own(&Container::new(&cluster.lab, place, &[NAMES])?)?;
            Ok(Servers { _names: NameServer::start(place, &zone)?, _own: own })
        });
        let servers = servers.collect::<Result<Vec<_>>>()?;
        let manifests = cluster.lab.manifests();
        let names = Service::new("dns", &[&NAMES.to_string(), NAMES_V6]);
        let empty = Service::new("empty", &[&EMPTY.to_string()]).port(DNS, Protocol::Udp, name_server::PORT);
        manifests.write(
            "services.yaml",
            &[
                &with_ports(names, DNS_PORTS, Service::port),
                &service("web", &[WEB, WEB_V6]),
                &service("global", &[GLOBAL_V6]),
                &empty,
            ],
        )?;
        if !own_ports.is_empty() {
            let service = with_ports(Service::new("own", &[OWN]), own_ports, Service::port);
            manifests.write("own.yaml", &[&service])?;
        }
        let (agent, own_ports) = (Agent::reading(&cluster.lab), own_ports.to_vec());
        let mut trial = Self { processes: Vec::new(), agent, servers, own_ports, client, cluster };
        trial.use_endpoint(0)?;
        trial.agent.restart(&trial.cluster.lab)?;
        Ok(trial)
    }

    /// Starts a process in the client's pod, which runs until the end of the test.
    pub(crate) fn run_in_background(&mut self, command: Command) {
        self.processes.push(self.client.start(command).expect("the process starts"));
    }

    /// The pod that is the endpoint.
    pub(crate) fn endpoint(&self) -> &Backend {
        &self.cluster.backends[0]
    }

    /// Makes a pod the only endpoint of every Service.
    fn use_endpoint(&self, number: usize) -> Result<()> {
        let names = with_ports(EndpointSlice::new("dns"), DNS_PORTS, EndpointSlice::port);
        let own = with_ports(EndpointSlice::new("own"), &self.own_ports, EndpointSlice::port);
        let addresses = self.cluster.backends[number].place.addresses();
        let slices: Vec<EndpointSlice> = [names, slice("web"), slice("global"), own]
            .iter()
            .flat_map(|slice| addresses.map(|address| slice.clone().ready(address)))
            .collect();
        let slices: Vec<&dyn Display> = slices.iter().map(|slice| slice as _).collect();
        self.cluster.lab.manifests().write("slices.yaml", &slices)
    }

    /// Puts `pod-1` in place of `pod-0`, and deletes `pod-0` with its processes, servers and network.
    pub(crate) fn replace_endpoint(&mut self) {
        self.use_endpoint(1).expect("the manifests are written");
        drop(self.servers.remove(0));
        drop(self.cluster.backends.remove(0));
    }

    /// Whether an answer begins with the name or an address of the endpoint.
    pub(crate) fn is_from_endpoint(&self, answer: &str) -> bool {
        let Some(first) = answer.split_whitespace().next() else { return false };
        let place = &self.endpoint().place;
        first == place.name() || place.addresses().iter().any(|own| first.parse() == Ok(*own))
    }

    /// Sends requests until one is answered by the endpoint, and returns how long that took.
    pub(crate) fn wait_for_endpoint(&self, mut ask: impl FnMut(&Container) -> Result<String>) -> Duration {
        let start = Instant::now();
        loop {
            let answer = ask(&self.client);
            if answer.as_ref().is_ok_and(|answer| self.is_from_endpoint(answer)) {
                return start.elapsed();
            }
            let name = self.endpoint().place.name();
            assert!(start.elapsed() < RECOVERY, "no answer from {name} after {RECOVERY:?}: {answer:?}");
            sleep(Duration::from_millis(20));
        }
    }

    /// Sends some requests, each of which the endpoint has to answer.
    pub(crate) fn expect_endpoint(&self, mut ask: impl FnMut(&Container) -> Result<String>) {
        for request in 0..REQUESTS {
            let answer = ask(&self.client).expect("an answer");
            let name = self.endpoint().place.name();
            assert!(self.is_from_endpoint(&answer), "request {request}: {answer:?} is not from {name}");
        }
    }

    /// Runs the scenario. `ask` sends one request, and returns an answer that begins with the name or an address of the pod
    /// that gave it.
    pub(crate) fn survives(mut self, mut ask: impl FnMut(&Container) -> Result<String>) {
        self.expect_endpoint(&mut ask);
        self.replace_endpoint();
        println!("first answer from the new endpoint after {:?}", self.wait_for_endpoint(&mut ask));
        self.expect_endpoint(&mut ask);
        self.agent.kill().expect("the agent is killed");
        self.expect_endpoint(&mut ask);
    }

    /// Runs the scenario with a process that sends requests by itself, and prints each answer as a line.
    pub(crate) fn survives_in(self, command: Command) {
        let mut process = self.client.start(command).expect("the process starts");
        self.wait_for_endpoint(|_| process.next_line(LINE));
        self.survives(move |_| process.next_line(LINE));
    }
}

/// The names of the Service `web`.
fn zone() -> Zone {
    let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("an address")).collect();
    Zone::from([
        ("web.demo.svc", addresses(&[WEB, WEB_V6])),
        ("web-v6.demo.svc", addresses(&[WEB_V6])),
        ("web-global.demo.svc", addresses(&[WEB, GLOBAL_V6])),
    ])
}

/// Adds ports that have the same number at the Service and at the pod.
fn with_ports<T>(to: T, ports: &[(Protocol, u16)], add: fn(T, &str, Protocol, u16) -> T) -> T {
    let name = |protocol: Protocol| protocol.to_string().to_lowercase();
    ports.iter().fold(to, |to, (protocol, number)| add(to, &name(*protocol), *protocol, *number))
}
