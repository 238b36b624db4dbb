//! `kubeproxy.config.k8s.io/v1alpha1`, as it is written.
//!
//! Fields that Sidestep follows have a type. The others are known, so they cause no warning, and kept verbatim for
//! `/configz`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A `KubeProxyConfiguration`.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KubeProxyConfiguration {
    /// `kubeproxy.config.k8s.io/v1alpha1`.
    pub api_version: String,
    /// `KubeProxyConfiguration`.
    pub kind: String,
    /// Decides the families of the default addresses to listen on (CF-3).
    pub bind_address: Option<String>,
    /// End when a port cannot be listened on (CF-5).
    pub bind_address_hard_fail: Option<bool>,
    /// How to reach the API server (CF-1).
    pub client_connection: Option<ClientConnection>,
    /// Where `/healthz` and `/livez` are (CF-4).
    pub healthz_bind_address: Option<String>,
    /// This node's name (CF-2).
    pub hostname_override: Option<String>,
    /// Where `/metrics` is (CF-4).
    pub metrics_bind_address: Option<String>,
    /// How long flows of packets stay without a packet (CF-14).
    pub conntrack: Option<Conntrack>,
    /// kube-proxy's back end: here it only selects whose `syncPeriod` counts (CF-7, CF-12).
    pub mode: Option<String>,
    /// Where NodePorts are answered (CF-8).
    pub node_port_addresses: Option<Vec<String>>,
    /// The agent's OOM score adjustment (CF-15).
    pub oom_score_adj: Option<i32>,
    /// Source ports of masqueraded packets (CF-16).
    pub port_range: Option<String>,
    /// kube-proxy's back end of this name.
    pub iptables: Option<BackEnd>,
    /// kube-proxy's back end of this name.
    pub ipvs: Option<BackEnd>,
    /// kube-proxy's back end of this name.
    pub nftables: Option<BackEnd>,
    // Read without effect; `ignored` says why.
    #[serde(rename = "clusterCIDR", skip_serializing_if = "Option::is_none")]
    pub(super) cluster_cidr: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) config_sync_period: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) detect_local: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) detect_local_mode: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) enable_profiling: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) feature_gates: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) logging: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) show_hidden_metrics_for_version: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) winkernel: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) windows_run_as_service: Option<Value>,
}

impl KubeProxyConfiguration {
    /// The back end that `mode` names, `iptables` by default, and its field's name.
    pub(super) fn back_end(&self) -> (&'static str, Option<&BackEnd>) {
        match self.mode.as_deref() {
            Some("nftables") => ("nftables", self.nftables.as_ref()),
            Some("ipvs") => ("ipvs", self.ipvs.as_ref()),
            _ => ("iptables", self.iptables.as_ref()),
        }
    }
}

/// `clientConnection`.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientConnection {
    /// The kubeconfig; a pod's service account without one.
    pub kubeconfig: Option<String>,
    // Read without effect; `ignored` says why.
    pub(super) accept_content_types: Option<Value>,
    pub(super) burst: Option<Value>,
    pub(super) content_type: Option<Value>,
    pub(super) qps: Option<Value>,
}

/// `conntrack`. Durations are such as `30s`; 0 means the default.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Conntrack {
    /// How long an established TCP connection may be idle.
    pub tcp_established_timeout: Option<String>,
    /// How long a TCP connection may be idle that one side has closed.
    pub tcp_close_wait_timeout: Option<String>,
    /// How long a UDP flow may be idle that has not been answered.
    pub udp_timeout: Option<String>,
    /// How long a UDP flow may be idle that has been answered.
    pub udp_stream_timeout: Option<String>,
    // Read without effect; `ignored` says why.
    pub(super) max_per_core: Option<Value>,
    pub(super) min: Option<Value>,
    pub(super) tcp_be_liberal: Option<Value>,
}

/// `iptables`, `ipvs` or `nftables`.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BackEnd {
    /// A duration such as `30s`, for what counts as stuck (CF-12); 0 means the default.
    pub sync_period: Option<String>,
    /// Of `iptables`: whether NodePorts are answered at loopback (CF-11).
    pub localhost_node_ports: Option<bool>,
    /// Whether north-south traffic to this node's pods is masqueraded, too (CF-10).
    pub masquerade_all: Option<bool>,
    // Read without effect; `ignored` says why.
    #[serde(rename = "excludeCIDRs")]
    pub(super) exclude_cidrs: Option<Value>,
    pub(super) masquerade_bit: Option<Value>,
    pub(super) min_sync_period: Option<Value>,
    pub(super) scheduler: Option<Value>,
    #[serde(rename = "strictARP")]
    pub(super) strict_arp: Option<Value>,
    pub(super) tcp_fin_timeout: Option<Value>,
    pub(super) tcp_timeout: Option<Value>,
    pub(super) udp_timeout: Option<Value>,
}
