//! A client, two nodes that route, a pod on each: five network namespaces and four links.
//!
//! ```text
//!                                        pod 10.244.1.10           pod 10.244.2.10
//!                                             │                         │
//!   outside 192.0.2.10 ── 192.0.2.1 node A 192.168.1.1 ── 192.168.1.2 node B
//! ```
//! Or the client is another pod of node A, 10.244.3.10, whose sockets no program serves.
//!
//! Every compared system has a site of its own with the same addresses, isolated from the others; it runs on node A,
//! which all packets pass in both directions.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::Result;
use sidestep_tests::{cgroup::Cgroup, identity::Identity, namespace::Namespace};

use crate::{
    place::{Processors, Urgency},
    protocol::SERVER_PORT,
    server::Server,
    sink::Sink,
    switch,
    topology::PODS,
    tracking,
    wire::{self, End},
    worker::Worker,
};

/// Where clients are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Clients {
    /// On a host outside; they ask for NodePorts.
    Outside,
    /// In a pod on node A; they ask for ClusterIPs.
    InPod,
}

impl Clients {
    /// Their address towards Services.
    pub(super) const fn address(self) -> Ipv4Addr {
        match self {
            Self::Outside => Ipv4Addr::new(192, 0, 2, 10),
            Self::InPod => Ipv4Addr::new(10, 244, 3, 10),
        }
    }

    /// Their address towards pods. With one address for both, a connection through a Service and a direct one could
    /// have the same ports, and be the same connection to the pod.
    pub(super) const fn address_to_pods(self) -> Ipv4Addr {
        match self {
            Self::Outside => Ipv4Addr::new(192, 0, 2, 11),
            Self::InPod => Ipv4Addr::new(10, 244, 3, 11),
        }
    }

    /// Node A, at their side.
    const fn gateway(self) -> Ipv4Addr {
        match self {
            Self::Outside => Ipv4Addr::new(192, 0, 2, 1),
            Self::InPod => Ipv4Addr::new(10, 244, 3, 1),
        }
    }

    /// Node A, as it is known in the cluster: where its NodePorts are.
    pub(super) const fn node(self) -> Ipv4Addr {
        match self {
            Self::Outside => self.gateway(),
            Self::InPod => NODE_INSIDE,
        }
    }
}

/// Node A on the way to node B.
pub(super) const NODE_INSIDE: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);
/// Node A on the way to its pod.
pub(super) const NODE_POD: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 1);
/// The pods on A and B.
pub(super) const POD: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 244, 1, 10), Ipv4Addr::new(10, 244, 2, 10)];
/// What the nodes are called.
pub(super) const SITE_NODES: [&str; 2] = ["node-a", "node-b"];
/// Node B.
const OTHER_NODE: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 2);
/// Node B on the way to its pod.
const OTHER_NODE_POD: Ipv4Addr = Ipv4Addr::new(10, 244, 2, 1);

/// A site, with servers that listen in its pods.
#[derive(Debug)]
pub(super) struct Site {
    _servers: Vec<Server>,
    /// The sockets at which datagrams arrive, as in [`POD`].
    sinks: Vec<Sink>,
    /// Where clients are.
    pub(super) outside: Namespace,
    /// The node to which clients connect.
    pub(super) node: Namespace,
    /// Its device on the way outside.
    pub(super) uplink: String,
    _others: [Namespace; 3],
}

impl Site {
    /// Makes the namespaces and starts the servers, in a cgroup that no program is attached to. `number` tells sites
    /// apart where namespaces do not: in the names of the kernel's threads.
    pub(super) fn new(
        number: usize,
        clients: Clients,
        cgroup: &Cgroup,
        processors: Processors,
    ) -> Result<Self> {
        let name = Identity::new();
        let make = |part: &str| Namespace::new(format!("{name}-{part}"));
        let (outside, node, other) = (make("outside")?, make("node")?, make("other")?);
        let (pod, other_pod) = (make("pod")?, make("other-pod")?);
        let uplink = format!("up{}-{number}", std::process::id() % 10_000);
        let addresses = [clients.address(), clients.address_to_pods()];
        let wires = [
            (&outside, "eth0", addresses.as_slice(), &node, uplink.as_str(), clients.gateway()),
            (&node, "inside", &[NODE_INSIDE], &other, "inside", OTHER_NODE),
            (&node, "pod", &[NODE_POD], &pod, "eth0", POD[0]),
            (&other, "pod", &[OTHER_NODE_POD], &other_pod, "eth0", POD[1]),
        ];
        for (number, (near, near_device, near_addresses, far, far_device, far_address)) in (1..).zip(wires) {
            wire::join(
                number,
                End { namespace: near, device: near_device, addresses: near_addresses },
                End { namespace: far, device: far_device, addresses: &[far_address] },
            )?;
        }
        let (gateway, to_pods) = (clients.gateway(), clients.address_to_pods());
        outside.ip_batch(&format!("route add {PODS} via {gateway} src {to_pods}\n"))?;
        let way_out = match clients {
            Clients::Outside => clients.address(),
            Clients::InPod => OTHER_NODE,
        };
        for (from, through) in [
            (&outside, gateway),
            (&node, way_out),
            (&other, NODE_INSIDE),
            (&pod, NODE_POD),
            (&other_pod, OTHER_NODE_POD),
        ] {
            from.ip_batch(&format!("route add default via {through}\n"))?;
        }
        node.ip_batch(&format!("route add 10.244.2.0/24 via {OTHER_NODE}\n"))?;
        for router in [&node, &other] {
            switch::set(router, "net/ipv4/ip_forward", "1")?;
        }
        switch::set(&outside, "net/ipv4/ip_local_port_range", "1024 65535")?;
        let (mut servers, mut sinks) = (Vec::new(), Vec::new());
        for (pod, address) in [&pod, &other_pod].into_iter().zip(POD) {
            switch::set(pod, "net/core/somaxconn", "16384")?;
            switch::set(pod, "net/ipv4/tcp_max_syn_backlog", "16384")?;
            let sink = Sink::open(pod, SocketAddrV4::new(address, SERVER_PORT))?;
            sink.count_floods()?;
            sinks.push(sink);
            let own = std::slice::from_ref(&sinks[sinks.len() - 1]);
            servers.push(Server::start(pod, cgroup, processors.server, own, Urgency::RealTime)?);
        }
        Ok(Self { _servers: servers, sinks, outside, node, uplink, _others: [other, pod, other_pod] })
    }

    /// Starts a client.
    pub(super) fn worker(&self, cgroup: &Cgroup, processors: Processors) -> Result<Worker> {
        Worker::start(&self.outside, cgroup, processors.client, &self.sinks, Urgency::RealTime)
    }

    /// The devices of that node, in the same order at every site.
    pub(super) fn devices(&self) -> [&str; 3] {
        [&self.uplink, "inside", "pod"]
    }

    /// An error if the node tracks connections.
    pub(super) fn ensure_untracked(&self) -> Result<()> {
        tracking::ensure_none(&self.node)
    }
}
