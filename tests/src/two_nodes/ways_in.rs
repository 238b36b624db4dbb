//! A Service with every kind of frontend for north-south clients.

use std::net::SocketAddr;

use crate::{
    cluster::{DNS, HTTP, at},
    manifest::{Protocol, Service},
};

/// The Service's TCP NodePort.
pub const HTTP_NODE_PORT: u16 = 30080;
/// The Service's UDP NodePort.
pub const DNS_NODE_PORT: u16 = 30053;

/// An address of the Service.
#[derive(Clone, Copy, Debug)]
pub struct WayIn {
    /// The kind of address.
    pub kind: &'static str,
    /// Its TCP frontend.
    pub tcp: SocketAddr,
    /// Its UDP frontend.
    pub udp: SocketAddr,
}

/// A Service called `web` with a ClusterIP, NodePorts, an external IP and a LoadBalancer IP of each family.
pub fn web() -> Service {
    Service::new("web", &["10.96.0.10", "fd00:10:96::10"])
        .port(HTTP, Protocol::Tcp, 80)
        .node_port(HTTP_NODE_PORT)
        .port(DNS, Protocol::Udp, 53)
        .node_port(DNS_NODE_PORT)
        .external_ip([198, 51, 100, 7])
        .external_ip([0x2001, 0xdb8, 0x198, 0, 0, 0, 0, 7])
        .load_balancer([203, 0, 113, 7], "VIP")
        .load_balancer([0x2001, 0xdb8, 0x203, 0, 0, 0, 0, 7], "VIP")
}

/// The NodePorts at the node's addresses, one of each family.
pub fn node_ports() -> [WayIn; 2] {
    ["192.0.2.10", "[2001:db8:192::10]"].map(|address| WayIn {
        kind: "NodePort",
        tcp: at(&format!("{address}:{HTTP_NODE_PORT}")),
        udp: at(&format!("{address}:{DNS_NODE_PORT}")),
    })
}

/// The LoadBalancer IPs, one of each family.
pub fn load_balancer_ips() -> [WayIn; 2] {
    way("LoadBalancer IP", ["203.0.113.7", "[2001:db8:203::7]"])
}

/// The ClusterIPs, one of each family.
pub fn cluster_ips() -> [WayIn; 2] {
    way("ClusterIP", ["10.96.0.10", "[fd00:10:96::10]"])
}

/// Every address of the Service.
pub fn ways_in() -> Vec<WayIn> {
    let external = way("external IP", ["198.51.100.7", "[2001:db8:198::7]"]);
    [node_ports(), load_balancer_ips(), external, cluster_ips()].concat()
}

fn way(kind: &'static str, addresses: [&str; 2]) -> [WayIn; 2] {
    addresses.map(|address| WayIn {
        kind,
        tcp: at(&format!("{address}:80")),
        udp: at(&format!("{address}:53")),
    })
}
