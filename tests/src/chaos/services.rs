//! The judged Services, and the ways to them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::topology::{NODE_V4, NODE_V6, OTHER_V4, OTHER_V6};

/// Their names; the number of a Service is its place here.
pub(super) const NAMES: [&str; 4] = ["all", "here", "there", "some"];
/// The Service whose endpoints come and go.
pub(super) const SOME: usize = 3;
/// The endpoints at the beginning, a bit each: two on either node.
pub(super) const ENDPOINTS: [u8; 4] = [0b1111, 0b0011, 0b1100, 0b1111];
/// The port of TCP, and of UDP, at a Service's addresses.
pub(super) const PORTS: [u16; 2] = [80, 53];

/// One address of a Service, as clients in one place use it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    /// What kind of address it is.
    pub(super) kind: &'static str,
    /// Which Service has it.
    pub(super) service: usize,
    /// The node that translates.
    pub(super) node: usize,
    /// Its frontend for TCP.
    pub(super) tcp: SocketAddr,
    /// Its frontend for UDP.
    pub(super) udp: SocketAddr,
}

/// The ClusterIPs of a Service.
pub(super) fn cluster_ips(service: usize) -> [IpAddr; 2] {
    let number = last(service);
    [
        Ipv4Addr::new(10, 96, 1, number).into(),
        Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 1, number.into()).into(),
    ]
}

/// The LoadBalancer IPs of a Service.
pub(super) fn load_balancer_ips(service: usize) -> [IpAddr; 2] {
    let number = last(service);
    [
        Ipv4Addr::new(203, 0, 113, number).into(),
        Ipv6Addr::new(0x2001, 0xdb8, 0x203, 0, 0, 0, 0, number.into()).into(),
    ]
}

/// The NodePorts of a Service, for TCP and for UDP.
pub(super) fn node_ports(service: usize) -> [u16; 2] {
    let number = u16::from(last(service));
    [30_100 + number, 30_200 + number]
}

fn last(service: usize) -> u8 {
    10 + u8::try_from(service).expect("a few Services")
}

/// The ways of pods and processes of a node.
pub(super) fn inside(node: usize) -> Vec<Way> {
    (0..NAMES.len())
        .flat_map(|service| {
            cluster_ips(service).map(|ip| {
                let [tcp, udp] = PORTS.map(|port| SocketAddr::new(ip, port));
                Way { kind: "ClusterIP", service, node, tcp, udp }
            })
        })
        .collect()
}

/// The ways of clients outside: NodePorts of either node, and LoadBalancer IPs, which are routed to the first one.
pub(super) fn outside() -> Vec<Way> {
    let nodes: [(usize, IpAddr); 4] =
        [(0, NODE_V4.into()), (0, NODE_V6.into()), (1, OTHER_V4.into()), (1, OTHER_V6.into())];
    (0..NAMES.len())
        .flat_map(|service| {
            let ports = node_ports(service);
            let by_port = nodes.map(|(node, ip)| {
                let [tcp, udp] = ports.map(|port| SocketAddr::new(ip, port));
                Way { kind: "NodePort", service, node, tcp, udp }
            });
            let by_address = load_balancer_ips(service).map(|ip| {
                let [tcp, udp] = PORTS.map(|port| SocketAddr::new(ip, port));
                Way { kind: "LoadBalancer IP", service, node: 0, tcp, udp }
            });
            by_port.into_iter().chain(by_address)
        })
        .collect()
}
