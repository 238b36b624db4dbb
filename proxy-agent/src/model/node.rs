//! The Node that the agent runs on.

use proxy_common::Address;

use super::{Flaw, Flaws, address, wire};

/// The key of the taint that the cluster autoscaler puts on a node that it is about to remove (HE-1).
const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";

/// What a Node says that matters here (IN-5).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    /// `metadata.name`.
    pub name: Box<str>,
    /// The label `topology.kubernetes.io/zone`.
    pub zone: Option<Box<str>>,
    /// `status.addresses` of the types `InternalIP` and `ExternalIP`, in that order.
    pub addresses: Box<[Address]>,
    /// Whether it is about to be removed, so that load balancers should send it no new connections (HE-1).
    pub leaving: bool,
    /// Fields that could not be used.
    pub flaws: Box<[Flaw]>,
}

impl Node {
    /// Checks and keeps what matters.
    pub fn read(wire: wire::Node) -> Self {
        let wire::Node { metadata, spec, status } = wire;
        let mut flaws = Flaws::default();
        let listed = status.and_then(|status| status.addresses).unwrap_or_default();
        let mut addresses = Vec::new();
        for wanted in ["InternalIP", "ExternalIP"] {
            for (index, entry) in listed.iter().enumerate().filter(|(_, entry)| entry.type_ == wanted) {
                match address::parse_vip(&entry.address) {
                    Ok(address) if addresses.contains(&address) => {}
                    Ok(address) => addresses.push(address),
                    Err(error) => flaws.add(|| format!("status.addresses[{index}].address"), || error),
                }
            }
        }
        let zone = metadata.labels.and_then(|mut labels| labels.remove("topology.kubernetes.io/zone"));
        Self {
            name: metadata.name.unwrap_or_default().into(),
            zone: zone.filter(|zone| !zone.is_empty()).map(Into::into),
            addresses: addresses.into(),
            leaving: metadata.deletion_timestamp.is_some() || spec.is_some_and(is_to_be_deleted),
            flaws: flaws.finish(),
        }
    }
}

fn is_to_be_deleted(spec: wire::NodeSpec) -> bool {
    spec.taints.into_iter().flatten().any(|taint| taint.key.as_deref() == Some(TO_BE_DELETED))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// HE-1: a deletion timestamp or the autoscaler's taint; a cordoned node is not leaving.
    #[test]
    fn a_node_leaves_when_it_is_deleted_or_about_to_be() {
        for (metadata, spec, leaving) in [
            (serde_json::json!({}), serde_json::json!({}), false),
            (serde_json::json!({}), serde_json::json!({"unschedulable": true, "taints": null}), false),
            (
                serde_json::json!({}),
                serde_json::json!({"taints": [{"key": "node.kubernetes.io/not-ready"}]}),
                false,
            ),
            (
                serde_json::json!({}),
                serde_json::json!({"taints": [{"key": TO_BE_DELETED, "effect": "NoSchedule"}]}),
                true,
            ),
            (serde_json::json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}), serde_json::json!({}), true),
        ] {
            let wire = serde_json::from_value(serde_json::json!({"metadata": metadata, "spec": spec}));
            assert_eq!(Node::read(wire.expect("a Node")).leaving, leaving, "{metadata} {spec}");
        }
    }

    /// IN-5: `InternalIP` first, then `ExternalIP`; the zone is a label.
    #[test]
    fn a_node_is_its_addresses_and_its_zone() {
        let wire = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "n1", "labels": {"topology.kubernetes.io/zone": "a"}, "managedFields": [{}]},
            "status": {"addresses": [
                {"type": "Hostname", "address": "n1"},
                {"type": "ExternalIP", "address": "198.51.100.1"},
                {"type": "InternalIP", "address": "192.168.0.1"},
                {"type": "InternalIP", "address": "nonsense"},
                {"type": "InternalIP", "address": "fd00::1"},
            ]},
        }));
        let node = Node::read(wire.expect("a Node"));
        let texts: Vec<String> = node.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["192.168.0.1", "fd00::1", "198.51.100.1"]);
        assert_eq!(node.zone.as_deref(), Some("a"));
        assert_eq!(&*node.flaws[0].field, "status.addresses[3].address");
    }
}
