//! The Services of `bench nodeport`. Each has one port, one NodePort and one endpoint, so a client knows which
//! endpoint answers.
//!
//! They are of four kinds: TCP and UDP, each with the endpoint on node A and on the other one. NodePorts and ClusterIPs of a
//! kind follow one another.

use std::{
    fmt::Write as _,
    net::{Ipv4Addr, SocketAddrV4},
};

use serde_json::{Value, json};

use super::site::{Clients, POD, SITE_NODES};
use crate::{
    netfilter::{self, Ruled},
    protocol::SERVER_PORT,
    topology::{SERVICE_PORT, service_address},
    worker::Target,
};

/// Where an endpoint is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Endpoint {
    /// On the node to which clients connect.
    Local,
    /// On the other one.
    Remote,
}

impl Endpoint {
    pub(super) const ALL: [Self; 2] = [Self::Local, Self::Remote];

    /// For people.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Local => "local endpoint",
            Self::Remote => "remote endpoint",
        }
    }

    /// Its place among the pods of a site.
    pub(super) const fn place(self) -> usize {
        self as usize
    }

    /// The target of "direct".
    pub(super) const fn direct(self) -> Target {
        Target { address: POD[self.place()], addresses: 1, port: SERVER_PORT, ports: 1 }
    }
}

/// A transport.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Transport {
    const fn lower_case(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    const fn upper_case(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        }
    }
}

/// The kinds of Services.
const KINDS: [(Transport, Endpoint); 4] = [
    (Transport::Tcp, Endpoint::Local),
    (Transport::Tcp, Endpoint::Remote),
    (Transport::Udp, Endpoint::Local),
    (Transport::Udp, Endpoint::Remote),
];
/// The first NodePort. The usual range, 30000 to 32767, is too small for 10,000 of them.
const FIRST_NODE_PORT: u16 = 1_025;
/// NodePorts that a kind may have: those of all kinds end below the ports that kernels and proxies choose by
/// themselves.
const OF_A_KIND: u16 = 5_000;

/// This many Services of each kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Services(pub(super) u16);

impl Services {
    /// Of a node that has none.
    pub(super) const NONE: Self = Self(0);

    /// For people. A connection meets those of its own protocol and endpoint; the rest stand in the same tables.
    pub(super) fn name(self) -> String {
        match self.0 {
            0 => "no Service".to_owned(),
            1 => "1 Service".to_owned(),
            each => format!("{} Services", usize::from(each) * KINDS.len()),
        }
    }

    /// One in the middle: wherever rules stand in line, it is an average one.
    pub(super) fn hot(self, clients: Clients, transport: Transport, endpoint: Endpoint) -> Target {
        self.some(clients, transport, endpoint, self.0 / 2, 1)
    }

    /// Any of them.
    pub(super) fn any(self, clients: Clients, transport: Transport, endpoint: Endpoint) -> Target {
        self.some(clients, transport, endpoint, 0, self.0)
    }

    /// So many from the first on, as these clients ask for them.
    fn some(
        self,
        clients: Clients,
        transport: Transport,
        endpoint: Endpoint,
        first: u16,
        count: u16,
    ) -> Target {
        let kind = kind(transport, endpoint);
        match clients {
            Clients::Outside => {
                Target { address: clients.node(), addresses: 1, port: node_port(kind, first), ports: count }
            }
            Clients::InPod => Target {
                address: service_address(self.number(kind, first)),
                addresses: count.into(),
                port: SERVICE_PORT,
                ports: 1,
            },
        }
    }

    /// What rules are made from.
    pub(super) fn ruled(self, clients: Clients) -> Ruled {
        let service =
            |(number, transport, endpoint, node_port): (u32, Transport, Endpoint, u16)| netfilter::Service {
                address: service_address(number),
                port: SERVICE_PORT,
                protocol: transport.lower_case(),
                node_port: Some(node_port),
                endpoints: vec![SocketAddrV4::new(POD[endpoint.place()], SERVER_PORT)],
            };
        Ruled { node: clients.node(), services: self.each().map(service).collect() }
    }

    /// The objects that an agent reads, as YAML documents (which JSON documents are).
    pub(super) fn manifests(self, clients: Clients) -> String {
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": SITE_NODES[0]},
            "status": {"addresses": [{"type": "InternalIP", "address": clients.node()}]}});
        let objects = self.each().flat_map(|(number, transport, endpoint, node_port)| {
            [service(number, transport, node_port), slice(number, transport, endpoint)]
        });
        let mut text = String::new();
        for object in std::iter::once(node).chain(objects) {
            let _ = writeln!(text, "---\n{object}");
        }
        text
    }

    /// Number, protocol, endpoint and NodePort of each.
    fn each(self) -> impl Iterator<Item = (u32, Transport, Endpoint, u16)> {
        (0..self.0).flat_map(move |index| {
            (0_u16..).zip(KINDS).map(move |(kind, (transport, endpoint))| {
                (self.number(kind, index), transport, endpoint, node_port(kind, index))
            })
        })
    }

    /// Those of a kind follow one another.
    fn number(self, kind: u16, index: u16) -> u32 {
        u32::from(kind) * u32::from(self.0) + u32::from(index)
    }
}

const fn kind(transport: Transport, endpoint: Endpoint) -> u16 {
    transport as u16 * 2 + endpoint as u16
}

const fn node_port(kind: u16, index: u16) -> u16 {
    FIRST_NODE_PORT + kind * OF_A_KIND + index
}

fn name(number: u32) -> String {
    format!("service-{number}")
}

fn service(number: u32, transport: Transport, node_port: u16) -> Value {
    let address: Ipv4Addr = service_address(number);
    json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name(number), "namespace": "bench"},
        "spec": {"type": "NodePort", "clusterIP": address, "clusterIPs": [address], "ipFamilies": ["IPv4"],
            "externalTrafficPolicy": "Cluster", "internalTrafficPolicy": "Cluster",
            "ports": [{"name": "port", "protocol": transport.upper_case(), "port": SERVICE_PORT,
                "targetPort": SERVER_PORT, "nodePort": node_port}]}})
}

fn slice(number: u32, transport: Transport, endpoint: Endpoint) -> Value {
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": name(number), "namespace": "bench",
            "labels": {"kubernetes.io/service-name": name(number)}},
        "addressType": "IPv4",
        "ports": [{"name": "port", "protocol": transport.upper_case(), "port": SERVER_PORT}],
        "endpoints": [{"addresses": [POD[endpoint.place()]], "nodeName": SITE_NODES[endpoint.place()],
            "conditions": {"ready": true, "serving": true, "terminating": false}}]})
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_services_have_one_node_port() {
        let services = Services(2_500);
        let numbers: HashSet<_> = services.each().map(|(number, ..)| number).collect();
        let ports: HashSet<_> = services.each().map(|(.., node_port)| node_port).collect();
        assert_eq!((numbers.len(), ports.len()), (10_000, 10_000));
        assert!(ports.iter().all(|&port| (1_025..30_000).contains(&port)));
    }

    #[test]
    fn a_target_is_the_node_port_of_a_service_of_its_kind() {
        let services = Services(10);
        for endpoint in Endpoint::ALL {
            for transport in [Transport::Tcp, Transport::Udp] {
                let any = services.any(Clients::Outside, transport, endpoint);
                let hot = services.hot(Clients::Outside, transport, endpoint);
                assert!((any.port..any.port + any.ports).contains(&hot.port));
                for (_, of, at, node_port) in services.each() {
                    let is_one = (any.port..any.port + any.ports).contains(&node_port);
                    assert_eq!(is_one, (of, at) == (transport, endpoint), "{node_port}");
                }
            }
        }
    }
}
