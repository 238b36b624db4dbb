//! Which Services do load balancers check? (HE-3)
//!
//! The load balancer of a Service with `externalTrafficPolicy: Local` sends traffic only to nodes that have
//! endpoints of it, and asks each node at `healthCheckNodePort`.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
};

use super::{Family, candidates::candidates, frontends, view::View};
use crate::model::{EndpointSlice, ObjectName, Service};

/// A question that the node answers, for one family of a Service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HealthCheck {
    /// The Service whose endpoints it reports.
    pub service: ObjectName,
    /// Where the node listens for it.
    pub listen: Vec<SocketAddr>,
    /// How many ready endpoints are on this node.
    pub local_endpoints: u32,
}

/// The same, without the node's addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct HealthCheckCount {
    family: Family,
    port: u16,
    local_endpoints: u32,
}

/// One for each family of the Service, also if it has no endpoint; none without a port.
pub(super) fn count(service: &Service, slices: &[EndpointSlice], view: View<'_>) -> Vec<HealthCheckCount> {
    let Some(port) = service.health_check_node_port else { return Vec::new() };
    let counted = |family| HealthCheckCount {
        family,
        port,
        local_endpoints: local_endpoints(service, slices, family, view),
    };
    frontends::families(service).map(counted).collect()
}

/// Pods on this node that are ready for any port of the Service. One that terminates is not ready, unless
/// the Service publishes those too.
fn local_endpoints(service: &Service, slices: &[EndpointSlice], family: Family, view: View<'_>) -> u32 {
    let of_port =
        |port: &crate::model::ServicePort| candidates(slices, &port.name, port.protocol, family, view);
    let found = service.ports.iter().flat_map(of_port);
    let pods: HashSet<_> =
        found.filter(|pod| pod.local && pod.conditions.ready).map(|pod| pod.address).collect();
    u32::try_from(pods.len()).unwrap_or(u32::MAX)
}

impl HealthCheckCount {
    /// On the node's addresses.
    pub(super) fn on(self, service: &ObjectName, listening: &[IpAddr]) -> HealthCheck {
        let Self { family, port, local_endpoints } = self;
        let of_family = listening.iter().filter(|ip| ip.is_ipv4() == (family == Family::V4));
        HealthCheck {
            service: service.clone(),
            listen: of_family.map(|ip| SocketAddr::new(*ip, port)).collect(),
            local_endpoints,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plan::testing;

    fn checks(spec: serde_json::Value, endpoints: serde_json::Value) -> Vec<(Family, u16, u32)> {
        let service = testing::service(spec);
        let ports = json!([{"name": "a", "port": 80}, {"name": "b", "port": 81}]);
        let slice = testing::slice("web-1", "web", "IPv4", ports, endpoints);
        let counts = count(&service, &[slice], testing::view());
        counts.iter().map(|count| (count.family, count.port, count.local_endpoints)).collect()
    }

    /// FE-7, HE-3: only a LoadBalancer with the policy Local is asked about, in each of its families.
    #[test]
    fn only_local_load_balancers_are_asked_about() {
        for (kind, policy, port, expected) in [
            ("LoadBalancer", "Local", 32000, &[(Family::V4, 32000, 0), (Family::V6, 32000, 0)][..]),
            ("LoadBalancer", "Local", 0, &[]),
            ("LoadBalancer", "Local", 70000, &[]),
            ("LoadBalancer", "Cluster", 32000, &[]),
            ("NodePort", "Local", 32000, &[]),
        ] {
            let spec = json!({"type": kind, "externalTrafficPolicy": policy, "healthCheckNodePort": port,
                "clusterIPs": ["10.0.0.1", "fd00::1"]});
            assert_eq!(checks(spec, json!([])), expected, "{kind} {policy} {port}");
        }
    }

    /// HE-3: local and ready pods, each once over all ports; terminating ones only if they are published.
    #[test]
    fn a_pod_counts_once_if_it_is_local_and_ready() {
        let spec = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local",
            "healthCheckNodePort": 32000, "clusterIP": "10.0.0.1",
            "ports": [{"name": "a", "port": 80}, {"name": "b", "port": 81}]});
        let endpoint = |host: u8, node: &str, conditions: serde_json::Value| json!({"addresses": [format!("10.1.0.{host}")], "nodeName": node, "conditions": conditions});
        let terminating = json!({"ready": false, "serving": true, "terminating": true});
        let endpoints = json!([
            endpoint(1, "n1", json!({})),
            endpoint(2, "n2", json!({})),
            endpoint(3, "n1", terminating),
            endpoint(4, "n1", json!({"ready": true, "serving": true, "terminating": true})),
        ]);
        assert_eq!(checks(spec, endpoints), [(Family::V4, 32000, 2)]);
    }
}
