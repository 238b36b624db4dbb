//! Clients behind a pod that forwards, as behind a VPN's or a router's: none of their sockets is on this node.

use std::net::IpAddr;

use sidestep_tests::{
    Place, TwoNodes, cluster::Backend, in_every_variant, netfilter, two_nodes::cluster_ips,
};

use crate::{assert_served, by_packets, serve};

in_every_variant!(clients_of_a_pod_that_masquerades, clients_of_a_pod_that_routes);

/// A pod with a client behind it, whose packets it forwards.
fn with_client(nodes: &TwoNodes) -> (Place, Place) {
    let pod = nodes.pod_here("router").expect("a pod");
    let _ = by_packets(nodes, &pod);
    let behind = nodes.client_behind(&pod).expect("a client");
    (pod, behind)
}

/// PO-27: the endpoints see the pod.
fn clients_of_a_pod_that_masquerades(nodes: &TwoNodes) {
    let servers = [nodes.backend_here("here").expect("a pod"), nodes.backend_there("there").expect("a pod")];
    let (pod, behind) = with_client(nodes);
    for (family, range) in ["ip", "ip6"].into_iter().zip(TwoNodes::BEHIND) {
        let rules = format!(
            "table {family} m {{ chain p {{ type nat hook postrouting priority 100; {family} saddr {range} oifname eth0 \
             masquerade; }}; }}\n"
        );
        netfilter::nft(&pod, &rules).expect("rules");
    }
    each(nodes, &servers, &behind, |ip| pod.addresses().contains(&ip));
}

/// PO-27: the endpoint on this node sees the client. Other nodes do not know it: theirs see this node.
fn clients_of_a_pod_that_routes(nodes: &TwoNodes) {
    let servers = [nodes.backend_here("here").expect("a pod"), nodes.backend_there("there").expect("a pod")];
    let (pod, behind) = with_client(nodes);
    for (range, gateway) in TwoNodes::BEHIND.into_iter().zip(pod.addresses()) {
        nodes.node().namespace().ip_batch(&format!("route add {range} via {gateway}\n")).expect("a route");
    }
    each(nodes, &servers[..1], &behind, |ip| behind.addresses().contains(&ip));
    let mut own = nodes.node().addresses().to_vec();
    own.extend(nodes.preferred_sources());
    each(nodes, &servers[1..], &behind, |ip| own.contains(&ip));
}

fn each(nodes: &TwoNodes, servers: &[Backend], client: &Place, seen: impl Fn(IpAddr) -> bool) {
    for server in servers {
        let _agent = serve(nodes, &[server]);
        for way in cluster_ips() {
            assert_served(client, way, server.place.name(), &seen);
        }
    }
}
