//! The objects of the judged Services, and of Services that nobody asks.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::{Value, json};

use super::services::{self, NAMES, PORTS};
use crate::{
    agent::NODE_NAME,
    cluster::{DNS, DNS_PORT, HTTP, HTTP_PORT},
    manifest::NAMESPACE,
    place::Place,
    two_nodes::OTHER_NODE_NAME,
};

/// The nodes' names.
pub(super) const NODES: [&str; 2] = [NODE_NAME, OTHER_NODE_NAME];

/// A Node.
pub(super) fn node(number: usize, addresses: &[IpAddr]) -> Value {
    let addresses: Vec<Value> =
        addresses.iter().map(|address| json!({"type": "InternalIP", "address": address})).collect();
    json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": NODES[number]}, "status": {"addresses": addresses}})
}

/// A judged Service, with all its addresses.
pub(super) fn judged(number: usize) -> Value {
    let [tcp, udp] = services::node_ports(number);
    let mut service = service(NAMES[number], &services::cluster_ips(number));
    service["spec"]["type"] = "LoadBalancer".into();
    service["spec"]["ports"] = json!([
        {"name": HTTP, "protocol": "TCP", "port": PORTS[0], "nodePort": tcp},
        {"name": DNS, "protocol": "UDP", "port": PORTS[1], "nodePort": udp},
    ]);
    let ingress = services::load_balancer_ips(number).map(|ip| json!({"ip": ip, "ipMode": "VIP"}));
    service["status"] = json!({"loadBalancer": {"ingress": ingress}});
    service
}

/// A Service of one TCP port.
pub(super) fn service(name: &str, cluster_ips: &[IpAddr]) -> Value {
    let families: Vec<&str> = cluster_ips.iter().map(family).collect();
    json!({"kind": "Service", "apiVersion": "v1", "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"type": "ClusterIP", "clusterIP": cluster_ips[0], "clusterIPs": cluster_ips, "ipFamilies": families,
            "ports": [{"name": HTTP, "protocol": "TCP", "port": PORTS[0]}]}})
}

/// An `EndpointSlice` of each family with these pods, each with the number of its node.
pub(super) fn slices(service: &str, pods: &[(usize, &Place)]) -> [Value; 2] {
    [0, 1].map(|version| {
        let addresses: Vec<(usize, IpAddr)> =
            pods.iter().map(|(node, pod)| (*node, pod.addresses()[version])).collect();
        slice(service, ["IPv4", "IPv6"][version], &addresses)
    })
}

/// An `EndpointSlice` with these addresses, each with the number of its node.
pub(super) fn slice(service: &str, family: &str, addresses: &[(usize, IpAddr)]) -> Value {
    let endpoints: Vec<Value> = addresses
        .iter()
        .map(|(node, address)| {
            json!({"addresses": [address], "nodeName": NODES[*node],
                "conditions": {"ready": true, "serving": true, "terminating": false}})
        })
        .collect();
    json!({"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1",
        "metadata": {"name": slice_name(service, family), "namespace": NAMESPACE,
            "labels": {"kubernetes.io/service-name": service}},
        "addressType": family, "endpoints": endpoints,
        "ports": [{"name": HTTP, "protocol": "TCP", "port": HTTP_PORT}, {"name": DNS, "protocol": "UDP", "port": DNS_PORT}]})
}

/// The name of a Service's slice of a family.
pub(super) fn slice_name(service: &str, family: &str) -> String {
    format!("{service}-{}", family.to_lowercase())
}

/// The address of the Service of a crowd with this number.
pub(super) fn crowd_ip(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(u32::from_be_bytes([10, 100, 0, 0]) + number).into()
}

const fn family(address: &IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}
