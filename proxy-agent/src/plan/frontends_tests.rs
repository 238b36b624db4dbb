//! Frontends: one table for each row.

use serde_json::{Value, json};

use super::*;
use crate::plan::testing;

#[expect(clippy::needless_pass_by_value, reason = "callers write `json!` in place")]
fn service(spec: Value, ingress: Value) -> Service {
    testing::service_object(json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": spec, "status": {"loadBalancer": {"ingress": ingress}},
    }))
}

fn all(service: &Service) -> Vec<String> {
    all_in(service, testing::view())
}

fn all_in(service: &Service, view: View<'_>) -> Vec<String> {
    let mut found = Vec::new();
    for port in &service.ports {
        for family in families(service) {
            found.extend(wants(service, port, family, view).iter().map(|w| format!("{} {}", w.kind, w.key)));
        }
    }
    found
}

/// FE-1: one entry for each port and family, SCTP included (FE-8).
#[test]
fn every_port_has_a_frontend_in_every_family() {
    let service = service(
        json!({"clusterIPs": ["10.0.0.1", "fd00::1"], "ports": [
            {"name": "a", "port": 80}, {"name": "b", "port": 53, "protocol": "UDP"},
            {"name": "c", "port": 9, "protocol": "SCTP"}]}),
        json!([]),
    );
    assert_eq!(
        all(&service),
        [
            "ClusterIP 10.0.0.1:80/TCP",
            "ClusterIP [fd00::1]:80/TCP",
            "ClusterIP 10.0.0.1:53/UDP",
            "ClusterIP [fd00::1]:53/UDP",
            "ClusterIP 10.0.0.1:9/SCTP",
            "ClusterIP [fd00::1]:9/SCTP",
        ]
    );
}

/// FE-8: a port that no program serves is named.
#[test]
fn sctp_is_named_as_not_served() {
    let ports = json!([{"name": "a", "port": 80}, {"name": "c", "port": 9, "protocol": "SCTP"}]);
    let flaws =
        withheld(&service(json!({"clusterIP": "10.0.0.1", "ports": ports}), json!([])), testing::view());
    assert_eq!(
        flaws.iter().map(|flaw| flaw.field.to_string()).collect::<Vec<_>>(),
        ["spec.ports[1].protocol"]
    );
    assert!(flaws[0].message.contains("SCTP is not served"), "{flaws:?}");
}

/// FE-2: no ClusterIP of a family means no NodePort, external IP or LoadBalancer IP of it either.
#[test]
fn a_family_without_a_cluster_ip_has_no_frontend() {
    let service = service(
        json!({"type": "LoadBalancer", "clusterIP": "10.0.0.1", "externalIPs": ["2001:db8::1"],
               "ports": [{"port": 80, "nodePort": 30080}]}),
        json!([{"ip": "2001:db8::2"}]),
    );
    assert_eq!(all(&service), ["ClusterIP 10.0.0.1:80/TCP", "NodePort node-IPv4:30080/TCP"]);
}

/// FE-3, FE-4, FE-5: external IPs, NodePorts and LoadBalancer IPs of any type of Service.
#[test]
fn external_frontends_do_not_depend_on_the_type() {
    for kind in ["ClusterIP", "NodePort", "LoadBalancer"] {
        let service = service(
            json!({"type": kind, "clusterIP": "10.0.0.1", "externalIPs": ["192.0.2.1"],
                   "ports": [{"port": 80, "nodePort": 30080}]}),
            json!([{"ip": "192.0.2.2"}]),
        );
        assert_eq!(
            all(&service),
            [
                "ClusterIP 10.0.0.1:80/TCP",
                "ExternalIP 192.0.2.1:80/TCP",
                "LoadBalancer 192.0.2.2:80/TCP",
                "NodePort node-IPv4:30080/TCP",
            ]
        );
    }
}

/// FE-6: an address that one Service lists twice is no conflict.
#[test]
fn an_address_listed_twice_is_one_frontend() {
    let service = service(
        json!({"clusterIP": "10.0.0.1", "externalIPs": ["192.0.2.1", "10.0.0.1", "192.0.2.1"],
               "ports": [{"port": 80}]}),
        json!([{"ip": "192.0.2.1"}]),
    );
    assert_eq!(all(&service), ["ClusterIP 10.0.0.1:80/TCP", "ExternalIP 192.0.2.1:80/TCP"]);
}

/// PO-18: left to whoever listens there, and said so. An external IP that is the node's own is installed.
#[test]
fn a_cluster_ip_that_is_the_nodes_own_is_left_alone() {
    let service = service(
        json!({"clusterIP": "192.168.0.1", "externalIPs": ["192.0.2.1"], "ports": [{"port": 53}]}),
        json!([]),
    );
    assert_eq!(all(&service), ["ExternalIP 192.0.2.1:53/TCP"]);
    let flaws = withheld(&service, testing::view());
    assert_eq!(&*flaws[0].field, "spec.clusterIPs[0]");

    let own = self::service(
        json!({"clusterIP": "10.0.0.1", "externalIPs": ["192.168.0.1"], "ports": [{"port": 53}]}),
        json!([]),
    );
    assert_eq!(all(&own).len(), 2);
    assert!(withheld(&own, testing::view()).is_empty());
}

/// ST-1, ST-8: where clients cannot be told, a restricted family's LoadBalancer IPs are not installed, and said
/// so; everything else is.
#[test]
fn restricted_load_balancer_ips_are_withheld_where_clients_are_unknown() {
    let service = service(
        json!({"clusterIPs": ["10.0.0.1", "fd00::1"], "loadBalancerSourceRanges": ["198.51.100.0/24"],
               "externalIPs": ["192.0.2.1"], "ports": [{"port": 80, "nodePort": 30080}]}),
        json!([{"ip": "192.0.2.2"}, {"ip": "2001:db8::2"}]),
    );
    let everything = all(&service);
    assert_eq!(everything.len(), 7, "{everything:?}");
    assert!(withheld(&service, testing::view()).is_empty());

    let view = View { cannot_restrict: Some("no eyes"), ..testing::view() };
    let found = all_in(&service, view);
    assert!(!found.contains(&"LoadBalancer 192.0.2.2:80/TCP".to_owned()), "{found:?}");
    assert!(found.contains(&"LoadBalancer [2001:db8::2]:80/TCP".to_owned()), "{found:?}");
    assert_eq!(found.len(), 6, "{found:?}");
    let flaws = withheld(&service, view);
    assert_eq!(flaws.len(), 1);
    assert_eq!(&*flaws[0].field, "spec.loadBalancerSourceRanges");
    assert!(flaws[0].message.contains("no eyes"), "{flaws:?}");
}
