//! A node that translates with rules, with a client in its pod.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::{Result, ensure};
use sidestep_tests::cgroup::Cgroup;

use crate::{
    netfilter::{Flavour, Ruled, Service},
    place::Processors,
    protocol::SERVER_PORT,
    topology::{SERVERS, SERVICE_PORT, Topology, service_address},
    tracking,
    worker::Worker,
};

/// The address that the node has on the client's side.
const NODE: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 1);

/// The node.
pub(super) struct RuledNode {
    /// Which kind.
    pub(super) flavour: Flavour,
    /// How many Services the rules have.
    pub(super) services: u32,
    /// What read the rules.
    pub(super) program: &'static str,
    topology: Topology,
}

impl RuledNode {
    /// Makes the node and loads the rules.
    pub(super) fn new(
        flavour: Flavour,
        services: u32,
        outside: &Cgroup,
        processors: Processors,
    ) -> Result<Self> {
        let topology = Topology::new(outside, processors)?;
        let ruled = Ruled { node: NODE, services: (0..services).map(service).collect() };
        let program = flavour.install(&ruled, &topology.node)?;
        Ok(Self { flavour, services, program, topology })
    }

    /// Starts a client in the pod.
    pub(super) fn worker(&self, outside: &Cgroup, processors: Processors) -> Result<Worker> {
        self.topology.worker(outside, processors)
    }

    /// An error unless the node tracks connections: then the rules have not been used.
    pub(super) fn ensure_used(&self) -> Result<()> {
        let tracked = tracking::tracked(&self.topology.node)?;
        ensure!(tracked > 0, "{} with {} Services tracks no connection", self.flavour.name(), self.services);
        Ok(())
    }
}

/// A Service with two endpoints, both of them the server pod.
fn service(number: u32) -> Service {
    Service {
        address: service_address(number),
        port: SERVICE_PORT,
        protocol: "tcp",
        node_port: None,
        endpoints: SERVERS.map(|server| SocketAddrV4::new(server, SERVER_PORT)).to_vec(),
    }
}
