//! `v1` Node.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

/// A Node.
#[derive(Clone, Default, Debug, Deserialize)]
pub struct Node {
    /// `metadata`.
    #[serde(default, deserialize_with = "super::metadata::deserialize")]
    pub metadata: ObjectMeta,
    /// `status`.
    pub status: Option<NodeStatus>,
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
