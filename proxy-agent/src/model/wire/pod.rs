//! `v1` Pod.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

/// A Pod.
#[derive(Clone, Default, Debug, Deserialize)]
pub struct Pod {
    /// `metadata`.
    #[serde(default, deserialize_with = "super::metadata::deserialize")]
    pub metadata: ObjectMeta,
    /// `spec`.
    pub spec: Option<PodSpec>,
}

/// `spec`.
#[derive(Clone, Default, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSpec {
    /// `hostNetwork`.
    pub host_network: Option<bool>,
    /// `runtimeClassName`.
    pub runtime_class_name: Option<String>,
}
