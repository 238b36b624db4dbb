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
    /// `status`.
    pub status: Option<PodStatus>,
}

/// `spec`.
#[derive(Clone, Default, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSpec {
    /// `nodeName`.
    pub node_name: Option<String>,
    /// `hostNetwork`.
    pub host_network: Option<bool>,
    /// `runtimeClassName`.
    pub runtime_class_name: Option<String>,
}

/// `status`.
#[derive(Clone, Default, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodStatus {
    /// `phase`.
    pub phase: Option<String>,
    /// `podIPs`.
    #[serde(rename = "podIPs")]
    pub pod_ips: Option<Vec<PodIp>>,
}

/// An element of `podIPs`.
#[derive(Clone, Default, Debug, Deserialize)]
pub struct PodIp {
    /// `ip`.
    pub ip: Option<String>,
}
