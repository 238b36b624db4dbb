//! The result of file, flags and defaults.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use super::{
    Flags, KubeProxyConfiguration,
    addresses::{self, Purpose},
    decode::{Decoded, decode},
    duration,
    file::{ClientConnection, Conntrack},
    ignored::{Ignored, ignored},
};
use crate::{
    model::{Problem, Subject},
    plan::NodePortAddresses,
    ports::{BadRange, PortRange},
    timeouts::Timeouts,
};

/// The agent's configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The file and its text, if there is one.
    pub file: Option<(PathBuf, String)>,
    /// The node's name, if configured (CF-2).
    pub node_name: Option<String>,
    /// Where the API server is described, if not in the usual places (CF-1).
    pub kubeconfig: Option<PathBuf>,
    /// Where `/healthz` and `/livez` are (CF-4).
    pub healthz: Option<SocketAddr>,
    /// Where `/metrics` is (CF-4).
    pub metrics: Option<SocketAddr>,
    /// Whether the agent ends when it cannot listen there (CF-5).
    pub bind_hard_fail: bool,
    /// Where NodePorts are answered (CF-8, CF-11).
    pub node_port_addresses: NodePortAddresses,
    /// Whether north-south traffic to this node's pods is masqueraded, too (CF-10).
    pub masquerade_all: bool,
    /// The agent's OOM score adjustment (CF-15).
    pub oom_score_adj: i32,
    /// How long flows of packets stay (CF-14).
    pub timeouts: Timeouts,
    /// Source ports of masqueraded packets (CF-16).
    pub source_ports: PortRange,
    /// How long a change may wait before the agent is unhealthy: twice the `syncPeriod` (CF-12, HE-1).
    pub patience: Duration,
    /// The same as a file, for `/configz` and `--write-config-to`.
    pub effective: KubeProxyConfiguration,
    /// What could not be used.
    pub problems: Vec<Problem>,
}

/// `oomScoreAdj` by default, and `syncPeriod`, as kube-proxy has them.
const OOM_SCORE_ADJ: i32 = -999;
const SYNC_PERIOD: Duration = Duration::from_secs(30);

/// Notes what could not be used, by field.
struct Notes {
    subject: Subject,
    problems: Vec<Problem>,
}

impl Notes {
    fn add(&mut self, field: impl Into<String>, message: impl Into<String>) {
        let subject = self.subject.clone();
        self.problems.push(Problem { subject, field: field.into(), message: message.into() });
    }

    fn duration(&mut self, field: String, text: Option<&str>, default: Duration) -> Duration {
        duration::read(text, default).unwrap_or_else(|message| {
            self.add(field, message);
            default
        })
    }
}

impl Settings {
    /// Reads the file that the flags name, and lets them override it. Fails only if the file cannot be used.
    pub fn read(flags: &Flags) -> anyhow::Result<Self> {
        let file = match &flags.config {
            None => None,
            Some(path) => {
                let describe = |error: &dyn std::fmt::Display| {
                    anyhow::anyhow!("the configuration {}: {error}", path.display())
                };
                let text = fs::read_to_string(path).map_err(|error| describe(&error))?;
                let decoded = decode(&text).map_err(|error| describe(&error))?;
                Some((path.clone(), text, decoded))
            }
        };
        let (file, mut decoded) = match file {
            None => (None, Decoded::default()),
            Some((path, text, decoded)) => (Some((path, text)), decoded),
        };
        decoded.configuration = flags.kube_proxy.over(decoded.configuration)?;
        let settings = Self::new(file, decoded, flags);
        for Ignored { field, because } in ignored(&settings.effective)? {
            // CF-6: kube-proxy refuses gates that it does not know. Here no gate is known.
            if field.starts_with("featureGates.") {
                tracing::warn!(field, because, "read without effect");
            } else {
                tracing::info!(field, because, "read without effect");
            }
        }
        Ok(settings)
    }

    pub(super) fn new(file: Option<(PathBuf, String)>, decoded: Decoded, flags: &Flags) -> Self {
        let subject = Subject::Configuration { path: file.as_ref().map(|(path, _)| path.clone()) };
        let mut notes = Notes { subject, problems: Vec::new() };
        for (field, message) in decoded.passed_over {
            notes.add(field, message);
        }
        let mut written = override_by(decoded.configuration, flags);
        let v6 = written
            .bind_address
            .as_deref()
            .and_then(|ip| ip.parse().ok())
            .is_some_and(|ip: IpAddr| ip.is_ipv6());
        let listen = |flag: Option<&String>,
                      field: &mut Option<String>,
                      purpose: Purpose,
                      name: &str,
                      notes: &mut Notes| {
            let chosen = match field.as_deref() {
                // An empty flag means not to listen; an empty field means that it is not set.
                Some("") if flag.is_some() => Ok(None),
                None | Some("") => Ok(Some(purpose.default_address(v6))),
                Some(text) => addresses::read(text, purpose),
            };
            let chosen = chosen.unwrap_or_else(|error| {
                notes.add(name, error);
                Some(purpose.default_address(v6))
            });
            // An empty field would mean the default.
            *field = Some(chosen.map_or_else(|| "0.0.0.0:0".to_owned(), |address| address.to_string()));
            chosen
        };
        let healthz = listen(
            flags.healthz_bind_address.as_ref(),
            &mut written.healthz_bind_address,
            Purpose::Health,
            "healthzBindAddress",
            &mut notes,
        );
        let metrics = listen(
            flags.metrics_bind_address.as_ref(),
            &mut written.metrics_bind_address,
            Purpose::Metrics,
            "metricsBindAddress",
            &mut notes,
        );
        let entries = written.node_port_addresses.iter().flatten().map(String::as_str);
        let (mut node_port_addresses, bad) = NodePortAddresses::read(entries);
        for (index, message) in bad {
            notes.add(format!("nodePortAddresses[{index}]"), message);
        }
        if written.iptables.as_ref().and_then(|back_end| back_end.localhost_node_ports) == Some(false) {
            node_port_addresses = node_port_addresses.never_at_loopback();
        }
        let patience = 2 * sync_period(&written, &mut notes);
        let timeouts = timeouts(&written, &mut notes);
        let source_ports = source_ports(&mut written, &mut notes);
        let masquerade_all = [&written.iptables, &written.nftables, &written.ipvs]
            .into_iter()
            .flatten()
            .any(|back_end| back_end.masquerade_all == Some(true));
        let filled = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let connection = written.client_connection.as_ref();
        Self {
            node_name: filled(&written.hostname_override).map(|name| name.trim().to_owned()),
            kubeconfig: connection.and_then(|connection| filled(&connection.kubeconfig)).map(Into::into),
            healthz,
            metrics,
            bind_hard_fail: *written.bind_address_hard_fail.get_or_insert(false),
            node_port_addresses,
            masquerade_all,
            oom_score_adj: *written.oom_score_adj.get_or_insert(OOM_SCORE_ADJ),
            timeouts,
            source_ports,
            patience,
            effective: written,
            problems: notes.problems,
            file,
        }
    }

    /// The configuration in effect as YAML.
    pub fn to_yaml(&self) -> anyhow::Result<String> {
        Ok(serde_saphyr::to_string(&self.effective)?)
    }
}

/// Flags go before the file.
fn override_by(mut file: KubeProxyConfiguration, flags: &Flags) -> KubeProxyConfiguration {
    "kubeproxy.config.k8s.io/v1alpha1".clone_into(&mut file.api_version);
    "KubeProxyConfiguration".clone_into(&mut file.kind);
    let over = |field: &mut Option<String>, flag: &Option<String>| {
        if flag.is_some() {
            field.clone_from(flag);
        }
    };
    over(&mut file.hostname_override, &flags.node_name);
    // Node names are lower case, as in kube-proxy.
    file.hostname_override = file.hostname_override.map(|name| name.to_lowercase());
    over(&mut file.healthz_bind_address, &flags.healthz_bind_address);
    over(&mut file.metrics_bind_address, &flags.metrics_bind_address);
    file.bind_address_hard_fail = flags.bind_address_hard_fail.or(file.bind_address_hard_fail);
    file.oom_score_adj = flags.oom_score_adj.or(file.oom_score_adj);
    if let Some(ports) = flags.source_port_range {
        file.port_range = Some(ports.to_string());
    }
    if flags.nodeport_addresses.is_some() {
        file.node_port_addresses.clone_from(&flags.nodeport_addresses);
    }
    if let Some(path) = &flags.kubeconfig {
        let connection: &mut ClientConnection = file.client_connection.get_or_insert_default();
        connection.kubeconfig = Some(path.display().to_string());
    }
    file
}

/// CF-12: that of the back end which `mode` names, 30 seconds by default.
fn sync_period(written: &KubeProxyConfiguration, notes: &mut Notes) -> Duration {
    let (name, back_end) = written.back_end();
    let text = back_end.and_then(|back_end| back_end.sync_period.as_deref());
    notes.duration(format!("{name}.syncPeriod"), text, SYNC_PERIOD)
}

/// CF-14: the conntrack timeouts that apply to north-south flows.
fn timeouts(written: &KubeProxyConfiguration, notes: &mut Notes) -> Timeouts {
    let (default, none) = (Timeouts::default(), Conntrack::default());
    let conntrack = written.conntrack.as_ref().unwrap_or(&none);
    let mut read = |name: &str, text: &Option<String>, default: Duration| {
        notes.duration(format!("conntrack.{name}"), text.as_deref(), default)
    };
    Timeouts {
        tcp_established: read(
            "tcpEstablishedTimeout",
            &conntrack.tcp_established_timeout,
            default.tcp_established,
        ),
        tcp_close_wait: read(
            "tcpCloseWaitTimeout",
            &conntrack.tcp_close_wait_timeout,
            default.tcp_close_wait,
        ),
        udp: read("udpTimeout", &conntrack.udp_timeout, default.udp),
        udp_stream: read("udpStreamTimeout", &conntrack.udp_stream_timeout, default.udp_stream),
    }
}

/// CF-16: nothing, `0` and `0-0` mean the default, as in kube-proxy.
fn source_ports(written: &mut KubeProxyConfiguration, notes: &mut Notes) -> PortRange {
    let ports = match written.port_range.as_deref() {
        None | Some("" | "0" | "0-0") => Ok(PortRange::default()),
        Some(text) => text.parse(),
    };
    let ports = ports.unwrap_or_else(|error: BadRange| {
        notes.add("portRange", format!("{error}; taken as {}", PortRange::default()));
        PortRange::default()
    });
    written.port_range = Some(ports.to_string());
    ports
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
