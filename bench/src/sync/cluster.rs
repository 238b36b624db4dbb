//! Objects as an API server writes them, with what other programs read too: owners, managed fields, targets.

use std::net::Ipv4Addr;

use serde_json::{Value, json};
use sidestep_tests::{agent::NODE_NAME, api_server::Objects};

/// The first ClusterIP.
const CLUSTER_IPS: Ipv4Addr = Ipv4Addr::new(10, 112, 0, 0);
/// The first pod's address.
const PODS: Ipv4Addr = Ipv4Addr::new(10, 128, 0, 0);

/// So many Services, each with so many endpoints.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cluster {
    pub(super) services: u32,
    pub(super) endpoints: u32,
}

impl Cluster {
    /// All of its objects.
    pub(super) fn objects(self) -> Objects {
        let objects = Objects::default();
        objects.put(json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": NODE_NAME},
            "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.10"}]}}));
        for index in 0..self.services {
            let name = format!("service-{index:06}");
            objects.put(service(&name, cluster_ip(index)));
            objects.put(slice(&name, &self.pods(index, 0)));
        }
        objects
    }

    /// The pods of a Service after so many replacements.
    pub(super) fn pods(self, service: u32, replaced: u32) -> Vec<Ipv4Addr> {
        let first = PODS.to_bits() + (service * 2 + replaced % 2) * self.endpoints;
        (first..first + self.endpoints).map(Ipv4Addr::from_bits).collect()
    }

    /// The EndpointSlice of a Service after so many replacements.
    pub(super) fn replaced(self, service: u32, replaced: u32) -> Value {
        slice(&format!("service-{service:06}"), &self.pods(service, replaced))
    }
}

/// The ClusterIP of the Service with this number.
pub(super) const fn cluster_ip(index: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(CLUSTER_IPS.to_bits() + index)
}

/// A Service with one port.
pub(super) fn service(name: &str, address: Ipv4Addr) -> Value {
    json!({"kind": "Service", "apiVersion": "v1",
        "metadata": {"name": name, "namespace": "bench", "uid": uid(name),
            "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"app": name},
            "managedFields": managed("f:spec")},
        "spec": {"type": "ClusterIP", "clusterIP": address, "clusterIPs": [address],
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "internalTrafficPolicy": "Cluster",
            "sessionAffinity": "None", "selector": {"app": name},
            "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": 8080}]},
        "status": {"loadBalancer": {}}})
}

/// Its EndpointSlice, written now.
pub(super) fn slice(service: &str, pods: &[Ipv4Addr]) -> Value {
    let endpoint = |(number, address): (usize, &Ipv4Addr)| {
        let name = format!("{service}-5d59d67564-{number:05}");
        json!({"addresses": [address], "nodeName": format!("node-{:04}", address.octets()[3]), "zone": "zone-a",
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "targetRef": {"kind": "Pod", "namespace": "bench", "name": name, "uid": uid(&name)}})
    };
    let endpoints: Vec<Value> = pods.iter().enumerate().map(endpoint).collect();
    json!({"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1",
        "metadata": {"name": format!("{service}-x7k2p"), "generateName": format!("{service}-"),
            "namespace": "bench", "uid": uid(service), "generation": 3,
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app": service, "kubernetes.io/service-name": service,
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"},
            "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": "2026-01-01T00:00:00Z"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": service, "uid": uid(service),
                "controller": true, "blockOwnerDeletion": true}],
            "managedFields": managed("f:endpoints")},
        "addressType": "IPv4",
        "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
        "endpoints": endpoints})
}

fn managed(fields: &str) -> Value {
    json!([{"manager": "kube-controller-manager", "operation": "Update", "apiVersion": "v1",
        "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1",
        "fieldsV1": {fields: {}, "f:metadata": {"f:labels": {".": {}, "f:app": {}}, "f:ownerReferences": {".": {}}}}}])
}

/// Of the right length.
fn uid(name: &str) -> String {
    format!("{:0>36}", &name[name.len().saturating_sub(30)..])
}
