//! `v1` Node.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

/// A Node.
#[derive(Clone, Default, Debug, Deserialize)]
pub struct Node {
    /// `metadata`.
    #[serde(default, deserialize_with = "super::metadata::deserialize")]
    pub metadata: ObjectMeta,
    /// `spec`.
    pub spec: Option<NodeSpec>,
    /// `status`.
    pub status: Option<NodeStatus>,
}

/// `spec`.
#[derive(Clone, Default, Debug, Deserialize)]
pub struct NodeSpec {
    /// `taints`.
    pub taints: Option<Vec<Taint>>,
}

/// `spec.taints[]`.
#[derive(Clone, Default, Debug, Deserialize)]
pub struct Taint {
    /// `key`.
    pub key: Option<String>,
}

/// `status`.
#[derive(Clone, Default, Debug, Deserialize)]
pub struct NodeStatus {
    /// `addresses`.
    pub addresses: Option<Vec<NodeAddress>>,
}

/// `status.addresses[]`.
#[derive(Clone, Default, Debug, Deserialize)]
pub struct NodeAddress {
    /// `type`.
    #[serde(rename = "type")]
    pub type_: String,
    /// `address`.
    pub address: String,
}
