//! A client pod, a node that routes, a server pod: three network namespaces and two links.
//!
//! ```text
//!   client 10.244.1.10 ── 10.244.1.1 node 10.244.2.1 ── 10.244.2.10, .11 server
//! ```
//! Every topology has the same addresses in namespaces of its own, so rules on one node affect no other. Permanent
//! neighbour entries avoid ARP and neighbour discovery.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::Result;
use sidestep_tests::{cgroup::Cgroup, identity::Identity, namespace::Namespace};

use crate::{
    place::{Processors, Urgency},
    protocol::SERVER_PORT,
    server::Server,
    sink::Sink,
    switch, tracking,
    wire::{self, End},
    worker::{Target, Worker},
};

/// The client pod's address.
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 10);
/// The addresses that stand for the endpoints of every Service: both are the server pod's.
pub(crate) const SERVERS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 244, 2, 10), Ipv4Addr::new(10, 244, 2, 11)];
/// The Services' port.
pub(crate) const SERVICE_PORT: u16 = 80;
/// The pods' addresses, as kube-proxy's `--cluster-cidr`.
pub(crate) const PODS: &str = "10.244.0.0/16";

/// The endpoints, drawn from as a Service would: what "direct" connects to.
pub(crate) const DIRECT: Target = Target { address: SERVERS[0], addresses: 2, port: SERVER_PORT, ports: 1 };

/// The ClusterIP of the Service with this number.
pub(crate) const fn service_address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 96, 0, 1).to_bits() + number)
}

/// A Service in the middle of the first `services`: wherever rules stand in line, it is an average one.
pub(crate) const fn hot(services: u32) -> Target {
    Target { address: service_address(services / 2), addresses: 1, port: SERVICE_PORT, ports: 1 }
}

/// Any of the first `services`.
pub(crate) const fn any(services: u32) -> Target {
    Target { address: service_address(0), addresses: services, port: SERVICE_PORT, ports: 1 }
}

/// The three namespaces, with a server that listens.
#[derive(Debug)]
pub(crate) struct Topology {
    _server: Server,
    /// The client pod.
    pub(crate) client: Namespace,
    /// The node.
    pub(crate) node: Namespace,
    _server_pod: Namespace,
}

impl Topology {
    /// Makes the namespaces and starts the server, in a cgroup that no program is attached to.
    pub(crate) fn new(outside: &Cgroup, processors: Processors) -> Result<Self> {
        let name = Identity::new();
        let node = Namespace::new(format!("{name}-node"))?;
        let client = Namespace::new(format!("{name}-client"))?;
        let server_pod = Namespace::new(format!("{name}-server"))?;
        wire(&node, &client, 1, &[CLIENT])?;
        wire(&node, &server_pod, 2, &SERVERS)?;
        switch::set(&node, "net/ipv4/ip_forward", "1")?;
        switch::set(&client, "net/ipv4/ip_local_port_range", "1024 65535")?;
        switch::set(&server_pod, "net/core/somaxconn", "16384")?;
        switch::set(&server_pod, "net/ipv4/tcp_max_syn_backlog", "16384")?;
        let sinks = SERVERS
            .iter()
            .map(|&address| Sink::open(&server_pod, SocketAddrV4::new(address, SERVER_PORT)))
            .collect::<Result<Vec<_>>>()?;
        let server = Server::start(&server_pod, outside, processors.server, &sinks, Urgency::Ordinary)?;
        Ok(Self { _server: server, client, node, _server_pod: server_pod })
    }

    /// Starts a client in this cgroup.
    pub(crate) fn worker(&self, cgroup: &Cgroup, processors: Processors) -> Result<Worker> {
        Worker::start(&self.client, cgroup, processors.client, &[], Urgency::Ordinary)
    }

    /// An error if the node tracks connections: then it is not what "direct" stands for.
    pub(crate) fn ensure_rule_free(&self) -> Result<()> {
        tracking::ensure_none(&self.node)
    }
}

/// Joins `pod` to the node: subnet `10.244.<number>.0/24`.
fn wire(node: &Namespace, pod: &Namespace, number: u8, addresses: &[Ipv4Addr]) -> Result<()> {
    let gateway = Ipv4Addr::new(10, 244, number, 1);
    let near = End { namespace: node, device: &format!("pod{number}"), addresses: &[gateway] };
    wire::join(number, near, End { namespace: pod, device: "eth0", addresses })?;
    pod.ip_batch(&format!("route add default via {gateway}\n"))
}
