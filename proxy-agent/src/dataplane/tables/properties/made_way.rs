//! An address that is in no plan any more makes way for the node's own while a whole plan is installed: it does not come back.

use sidestep_tests::skip;

use super::{Node, ROOMY, Step};
use crate::{
    dataplane::Capacity,
    plan::properties::cluster::{APort, AService, AnAffinity, Change, Cluster},
};

const NAMES: [&str; 4] = ["s1", "s2", "s3", "s4"];
const CLUSTER_IPS: [&str; 4] = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"];

#[test]
fn what_made_way_and_is_in_no_plan_stays_away() {
    if let Some(reason) = skip::missing() {
        skip!("{reason}");
    }
    // ADDRESSES is full, and the next agent finds Services gone, and an address of the node's that is new.
    let full = Capacity { frontends: 4, ..ROOMY };
    let mut cluster = Cluster::default();
    for (name, address) in NAMES.into_iter().zip(CLUSTER_IPS) {
        cluster.apply(Change::Service(name, Some(service(address))));
    }
    let mut node = Node::new(cluster, full);
    assert_eq!(node.faults(), [""; 0]);
    let gone = NAMES.into_iter().map(|name| Change::Service(name, None));
    node.step(Step::Restart(gone.chain([Change::LocalAddresses(vec!["192.168.0.1"])]).collect()));
    assert_eq!(node.faults(), [""; 0]);
}

fn service(address: &'static str) -> AService {
    AService {
        created: 1,
        kind: "ClusterIP",
        cluster_ips: vec![address],
        external_ips: Vec::new(),
        ingress: Vec::new(),
        ports: vec![APort { name: "", protocol: "TCP", port: 80, node_port: 0 }],
        internal: "Cluster",
        external: "Cluster",
        affinity: AnAffinity::None,
        ranges: Vec::new(),
    }
}
