//! A lab with what most scenarios need: a client pod, and pods that serve TCP and UDP.

use std::{collections::BTreeMap, fmt::Debug, net::SocketAddr};

use anyhow::Result;

use crate::{
    lab::Lab,
    manifest::{EndpointSlice, Node, Protocol, Service},
    place::Place,
    topology::{CLUSTER_IPS, OTHER_V4, OTHER_V6},
    traffic::{TcpServer, UdpServer},
};

/// Name of the port over which pods serve TCP.
pub const HTTP: &str = "http";
/// Its number at the pod.
pub const HTTP_PORT: u16 = 8080;
/// Name of the port over which pods serve UDP.
pub const DNS: &str = "dns";
/// Its number at the pod.
pub const DNS_PORT: u16 = 5300;

/// A pod with servers.
#[derive(Debug)]
pub struct Backend {
    /// The TCP server; it answers with the pod's name.
    pub tcp: TcpServer,
    /// The UDP server; it answers with the pod's name.
    pub udp: UdpServer,
    /// The pod.
    pub place: Place,
}

impl Backend {
    /// Starts both servers in a pod; they answer with its name.
    pub fn start(place: Place) -> Result<Self> {
        let tcp = TcpServer::start(&place, place.name(), HTTP_PORT)?;
        let udp = UdpServer::start(&place, place.name(), DNS_PORT)?;
        Ok(Self { tcp, udp, place })
    }
}

/// A lab, a client and some backends; the fields are dropped in this order, users before what they use.
#[derive(Debug)]
pub struct Cluster {
    /// The pods with servers: `pod-0`, `pod-1`, …
    pub backends: Vec<Backend>,
    /// The client's pod.
    pub client: Place,
    /// The lab.
    pub lab: Lab,
}

impl Cluster {
    /// Makes a client and this many backends in `lab`, and a manifest of the node.
    pub fn new(lab: Lab, backends: usize) -> Result<Self> {
        lab.manifests().write("node.yaml", &[&Node::lab()])?;
        let client = lab.pod("client")?;
        let backends = (0..backends)
            .map(|number| Backend::start(lab.pod(&format!("pod-{number}"))?))
            .collect::<Result<_>>()?;
        Ok(Self { backends, client, lab })
    }

    /// An `EndpointSlice` of these backends in IPv4, all of them ready.
    pub fn slice_v4(&self, service: &str, backends: impl IntoIterator<Item = usize>) -> EndpointSlice {
        backends.into_iter().fold(slice(service), |slice, number| slice.ready(self.backends[number].place.v4))
    }

    /// An `EndpointSlice` of these backends in IPv6, all of them ready.
    pub fn slice_v6(&self, service: &str, backends: impl IntoIterator<Item = usize>) -> EndpointSlice {
        backends.into_iter().fold(slice(service), |slice, number| slice.ready(self.backends[number].place.v6))
    }

    /// Writes `<name>.yaml`: a Service with all backends as its endpoints, in both families.
    pub fn serve(&self, name: &str, service: &Service) -> Result<()> {
        let all = || 0..self.backends.len();
        let (v4, v6) = (self.slice_v4(name, all()), self.slice_v6(name, all()));
        self.lab.manifests().write(&format!("{name}.yaml"), &[service, &v4, &v6])
    }

    /// Has ClusterIPs follow the default routes of the client and the node, as on most real nodes: what is not
    /// translated leaves by the uplink, and the other node answers nothing.
    pub fn route_services_out(&self) -> Result<()> {
        let node = self.lab.node();
        for place in [&self.client, node] {
            place.namespace().ip_batch(&CLUSTER_IPS.map(|range| format!("route del {range}\n")).concat())?;
        }
        node.namespace()
            .ip_batch(&format!("route add default via {OTHER_V4}\nroute add default via {OTHER_V6}\n"))
    }

    /// Writes `<name>-endpoints.yaml`: one slice, which a later call replaces.
    pub fn endpoints(&self, name: &str, slice: &EndpointSlice) -> Result<()> {
        self.lab.manifests().write(&format!("{name}-endpoints.yaml"), &[slice])
    }
}

/// A slice with the backends' ports and no endpoints.
pub fn slice(service: &str) -> EndpointSlice {
    EndpointSlice::new(service).port(HTTP, Protocol::Tcp, HTTP_PORT).port(DNS, Protocol::Udp, DNS_PORT)
}

/// A Service with ClusterIPs and both ports: TCP at 80, UDP at 53.
pub fn service(name: &str, cluster_ips: &[&str]) -> Service {
    Service::new(name, cluster_ips).port(HTTP, Protocol::Tcp, 80).port(DNS, Protocol::Udp, 53)
}

/// Makes this many requests and counts the servers that answer; panics at the first failure.
pub fn spread<T: AsRef<str>, E: Debug>(
    times: usize,
    mut ask: impl FnMut() -> Result<T, E>,
) -> BTreeMap<String, usize> {
    let mut answers = BTreeMap::new();
    for number in 0..times {
        let server = ask().unwrap_or_else(|error| panic!("request {number} of {times}: {error:?}"));
        *answers.entry(server.as_ref().to_owned()).or_default() += 1;
    }
    answers
}

/// An address and port, written down.
pub fn at(address: &str) -> SocketAddr {
    address.parse().expect("an address and port")
}

/// A [`Cluster`] with this many backends, or a skipped test where a lab cannot run.
#[macro_export]
macro_rules! cluster {
    ($backends:expr) => {
        $crate::cluster::Cluster::new($crate::lab!(), $backends).expect("a cluster")
    };
}
