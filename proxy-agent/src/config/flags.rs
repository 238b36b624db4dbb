//! The flags that override fields of the configuration file.

use std::path::PathBuf;

use clap::Args;

use super::kube_proxy_flags::KubeProxyFlags;
use crate::ports::PortRange;

/// kube-proxy's configuration file, and the flags that override its fields.
#[derive(Clone, Default, Debug, Args)]
#[command(next_help_heading = "Configuration")]
pub struct Flags {
    /// Configuration file: kube-proxy's KubeProxyConfiguration (v1alpha1)
    ///
    /// Flags override its fields. The agent logs each field that has no effect here, with the reason, and exits when the
    /// file changes, so that its DaemonSet or unit starts it again with the new one.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Write the effective configuration to this file, and exit
    ///
    /// The result of file, flags and defaults, as a KubeProxyConfiguration that --config reads. A running agent serves the
    /// same at /configz.
    #[arg(long, value_name = "FILE")]
    pub write_config_to: Option<PathBuf>,
    /// Name of this node's Node object [default: the host name in lower case]
    ///
    /// It decides which endpoints are local (traffic policies, topology hints) and which Node object's addresses
    /// answer NodePorts.
    #[arg(long, env = "NODE_NAME", alias = "hostname-override")]
    pub node_name: Option<String>,
    /// kubeconfig for the API server [default: $KUBECONFIG, ~/.kube/config, or the service account]
    ///
    /// With --server, the credentials come from here and the address from there.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Address for /healthz and /livez; empty to serve neither [default: 0.0.0.0:10256]
    ///
    /// Load balancers ask /healthz whether to send traffic to this node. It fails while changes wait for too long,
    /// until the agent knows its Node object, and once that is being deleted. /livez ignores the Node and suits a
    /// liveness probe.
    #[arg(long, value_name = "ADDRESS")]
    pub healthz_bind_address: Option<String>,
    /// Address for /metrics; empty to serve none [default: 127.0.0.1:10249]
    ///
    /// The same listener serves /configz and /proxyMode. Prometheus outside of the node needs another address than
    /// the default, such as 0.0.0.0:10249.
    #[arg(long, value_name = "ADDRESS")]
    pub metrics_bind_address: Option<String>,
    /// Exit if a healthz or metrics address cannot be bound
    ///
    /// Without it the agent lists the address among the problems and tries again every 5 seconds.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub bind_address_hard_fail: Option<bool>,
    /// Node addresses that answer NodePorts: ranges, or primary, localhost, all [default: the Node's]
    ///
    /// A range is written as 192.0.2.0/24; `primary` is the Node object's first address of each family, `localhost` the
    /// loopback addresses (for processes of this node), `all` every address of the node. Separate several by commas. By
    /// default all addresses of the Node object answer, and loopback does for this node's own processes.
    #[arg(long, value_name = "RANGE", value_delimiter = ',')]
    pub nodeport_addresses: Option<Vec<String>>,
    /// Source ports for masqueraded north-south traffic [default: 49152-65535]
    ///
    /// The agent adds this range to `net.ipv4.ip_local_reserved_ports`, so the kernel gives none of its ports to a
    /// socket of the node. Each endpoint can have as many masqueraded connections per node address as the range has
    /// ports.
    #[arg(long, value_name = "FIRST-LAST")]
    pub source_port_range: Option<PortRange>,
    /// The agent's OOM score adjustment, from -1000 (never killed) to 1000 [default: -999]
    ///
    /// Written to `/proc/self/oom_score_adj`. Lower values make the kernel pick other processes first when memory
    /// runs out.
    #[arg(long, allow_hyphen_values = true, value_parser = clap::value_parser!(i32).range(-1000..=1000))]
    pub oom_score_adj: Option<i32>,
    /// kube-proxy's other flags.
    #[command(flatten)]
    pub kube_proxy: KubeProxyFlags,
}
