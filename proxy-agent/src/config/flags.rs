//! The flags that stand for fields of the configuration file, and override them.

use std::path::PathBuf;

use clap::Args;

use super::kube_proxy_flags::KubeProxyFlags;
use crate::ports::PortRange;

/// Configuration: a file as kube-proxy's, and what overrides it.
#[derive(Clone, Default, Debug, Args)]
#[command(next_help_heading = "Configuration")]
pub struct Flags {
    /// A KubeProxyConfiguration (v1alpha1), as kube-proxy reads it; a change of it ends the agent, to be
    /// started again
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Write the configuration that is in effect to this file, and end
    #[arg(long, value_name = "FILE")]
    pub write_config_to: Option<PathBuf>,
    /// This node's name; decides which endpoints are local [default: the host name in lower case]
    #[arg(long, env = "NODE_NAME", alias = "hostname-override")]
    pub node_name: Option<String>,
    /// The kubeconfig that says where the API server is [default: the usual places, or the service account]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Where to serve /healthz and /livez; empty for nowhere [default: 0.0.0.0:10256]
    #[arg(long, value_name = "ADDRESS")]
    pub healthz_bind_address: Option<String>,
    /// Where to serve /metrics; empty for nowhere [default: 127.0.0.1:10249]
    #[arg(long, value_name = "ADDRESS")]
    pub metrics_bind_address: Option<String>,
    /// End if one of them cannot be listened on, instead of trying again every 5 seconds
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub bind_address_hard_fail: Option<bool>,
    /// Where to answer NodePorts: ranges of addresses, or primary, localhost, all [default: the Node's addresses]
    #[arg(long, value_name = "RANGE", value_delimiter = ',')]
    pub nodeport_addresses: Option<Vec<String>>,
    /// Source ports for packets from outside that are masqueraded; no socket of the node is given one of them
    /// [default: 49152-65535]
    #[arg(long, value_name = "FIRST-LAST")]
    pub source_port_range: Option<PortRange>,
    /// How much the kernel wants to kill the agent when memory is short [default: -999]
    #[arg(long, allow_hyphen_values = true, value_parser = clap::value_parser!(i32).range(-1000..=1000))]
    pub oom_score_adj: Option<i32>,
    /// kube-proxy's other flags.
    #[command(flatten)]
    pub kube_proxy: KubeProxyFlags,
}
