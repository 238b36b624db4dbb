//! kube-proxy's other flags, so that a `DaemonSet` can start `sidestep run` with the flags it passes to kube-proxy.
//!
//! Each stands for a field of the configuration and is treated as if it were written there: Sidestep follows it, or
//! logs that it has no effect, and why (`ignored`). `--help` does not show them.

use clap::{
    Arg, ArgMatches, Args, Command, FromArgMatches,
    builder::{BoolishValueParser, ValueParser},
};
use serde_json::{Map, Number, Value};

use super::KubeProxyConfiguration;

/// What a flag takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Takes {
    Text,
    /// A text.
    Number,
    /// Nothing, or `=true` or `=false`.
    Switch,
    /// Texts with commas between them.
    List,
    /// As `A=true,B=false`.
    Gates,
}

/// Flag, field, and type of value. For a setting of several back ends, the field is that of iptables.
const FLAGS: [(&str, &str, Takes); 43] = [
    ("bind-address", "bindAddress", Takes::Text),
    ("cluster-cidr", "clusterCIDR", Takes::Text),
    ("config-sync-period", "configSyncPeriod", Takes::Text),
    ("conntrack-max-per-core", "conntrack.maxPerCore", Takes::Number),
    ("conntrack-min", "conntrack.min", Takes::Number),
    ("conntrack-tcp-be-liberal", "conntrack.tcpBeLiberal", Takes::Switch),
    ("conntrack-tcp-timeout-close-wait", "conntrack.tcpCloseWaitTimeout", Takes::Text),
    ("conntrack-tcp-timeout-established", "conntrack.tcpEstablishedTimeout", Takes::Text),
    ("conntrack-udp-timeout", "conntrack.udpTimeout", Takes::Text),
    ("conntrack-udp-timeout-stream", "conntrack.udpStreamTimeout", Takes::Text),
    ("detect-local-mode", "detectLocalMode", Takes::Text),
    ("enable-dsr", "winkernel.enableDSR", Takes::Switch),
    ("feature-gates", "featureGates", Takes::Gates),
    ("forward-healthcheck-vip", "winkernel.forwardHealthCheckVip", Takes::Switch),
    ("iptables-localhost-nodeports", "iptables.localhostNodePorts", Takes::Switch),
    ("iptables-masquerade-bit", "iptables.masqueradeBit", Takes::Number),
    ("iptables-min-sync-period", "iptables.minSyncPeriod", Takes::Text),
    ("iptables-sync-period", "iptables.syncPeriod", Takes::Text),
    ("ipvs-exclude-cidrs", "ipvs.excludeCIDRs", Takes::List),
    ("ipvs-min-sync-period", "ipvs.minSyncPeriod", Takes::Text),
    ("ipvs-scheduler", "ipvs.scheduler", Takes::Text),
    ("ipvs-strict-arp", "ipvs.strictARP", Takes::Switch),
    ("ipvs-sync-period", "ipvs.syncPeriod", Takes::Text),
    ("ipvs-tcp-timeout", "ipvs.tcpTimeout", Takes::Text),
    ("ipvs-tcpfin-timeout", "ipvs.tcpFinTimeout", Takes::Text),
    ("ipvs-udp-timeout", "ipvs.udpTimeout", Takes::Text),
    ("kube-api-burst", "clientConnection.burst", Takes::Number),
    ("kube-api-content-type", "clientConnection.contentType", Takes::Text),
    ("kube-api-qps", "clientConnection.qps", Takes::Number),
    ("log-flush-frequency", "logging.flushFrequency", Takes::Text),
    ("logging-format", "logging.format", Takes::Text),
    ("masquerade-all", "iptables.masqueradeAll", Takes::Switch),
    ("network-name", "winkernel.networkName", Takes::Text),
    ("pod-bridge-interface", "detectLocal.bridgeInterface", Takes::Text),
    ("pod-interface-name-prefix", "detectLocal.interfaceNamePrefix", Takes::Text),
    ("profiling", "enableProfiling", Takes::Switch),
    ("proxy-mode", "mode", Takes::Text),
    ("proxy-port-range", "portRange", Takes::Text),
    ("root-hnsendpoint-name", "winkernel.rootHnsEndpointName", Takes::Text),
    ("show-hidden-metrics-for-version", "showHiddenMetricsForVersion", Takes::Text),
    ("source-vip", "winkernel.sourceVip", Takes::Text),
    ("vmodule", "logging.vmodule", Takes::Text),
    ("windows-service", "windowsRunAsService", Takes::Switch),
];

/// The given flags: their fields and values.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct KubeProxyFlags(Vec<(&'static str, Value)>);

impl KubeProxyFlags {
    /// The configuration, overridden by the flags.
    pub(super) fn over(&self, file: KubeProxyConfiguration) -> serde_json::Result<KubeProxyConfiguration> {
        if self.0.is_empty() {
            return Ok(file);
        }
        let mut written = serde_json::to_value(file)?;
        for (field, said) in &self.0 {
            let mut place = &mut written;
            for name in field.split('.') {
                if !place.is_object() {
                    *place = Value::Object(Map::new());
                }
                place = &mut place[name];
            }
            *place = said.clone();
        }
        serde_json::from_value(written)
    }
}

impl Takes {
    fn parser(self) -> ValueParser {
        match self {
            Self::Switch => BoolishValueParser::new().into(),
            Self::Text | Self::Number | Self::List | Self::Gates => ValueParser::string(),
        }
    }

    /// The value of the flag with this name, if given.
    fn said(self, flag: &str, matches: &ArgMatches) -> Option<Value> {
        if self == Self::Switch {
            return matches.get_one(flag).copied().map(Value::Bool);
        }
        let text = matches.get_one::<String>(flag)?;
        Some(match self {
            Self::Number => {
                text.parse::<Number>().map_or_else(|_| Value::String(text.clone()), Value::Number)
            }
            Self::List => text.split(',').map(Value::from).collect(),
            Self::Gates => {
                let gates = text.split(',').filter(|gate| !gate.is_empty());
                let read = |on: &str| on.parse().map_or_else(|_| Value::from(on), Value::Bool);
                gates
                    .map(|gate| gate.split_once('=').unwrap_or((gate, "true")))
                    .map(|(gate, on)| (gate, read(on)))
                    .collect()
            }
            Self::Text | Self::Switch => Value::String(text.clone()),
        })
    }
}

impl Args for KubeProxyFlags {
    fn augment_args(command: Command) -> Command {
        command.args(FLAGS.map(|(flag, _, takes)| {
            let arg = Arg::new(flag).long(flag).hide(true).value_parser(takes.parser());
            if takes == Takes::Switch {
                arg.num_args(0..=1).default_missing_value("true").require_equals(true)
            } else {
                arg.allow_hyphen_values(true)
            }
        }))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for KubeProxyFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let said = |(flag, field, takes): (_, _, Takes)| Some((field, takes.said(flag, matches)?));
        Ok(Self(FLAGS.into_iter().filter_map(said).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::{
        decode,
        ignored::{Ignored, ignored},
    };

    fn read(arguments: &[&str]) -> KubeProxyFlags {
        let command = KubeProxyFlags::augment_args(Command::new("run").no_binary_name(true));
        let matches = command.try_get_matches_from(arguments).expect("flags that are known");
        KubeProxyFlags::from_arg_matches(&matches).expect("flags")
    }

    fn configured(arguments: &[&str], file: &str) -> KubeProxyConfiguration {
        let file = decode(file).expect("a configuration").configuration;
        read(arguments).over(file).expect("flags that fit their fields")
    }

    /// CF-1, CF-3, CF-6, CF-7, CF-9 to CF-14, CF-16: every flag says something in a field that is known, even over
    /// every other field; what has no effect is named.
    #[test]
    fn every_flag_is_its_field() {
        let everything = include_str!("testdata/everything.yaml");
        for (flag, field, takes) in FLAGS {
            let value = match takes {
                Takes::Text | Takes::List => "=x,y",
                Takes::Number => "=77",
                Takes::Switch => "=false",
                Takes::Gates => "=A=true,B=false",
            };
            let written = configured(&[&format!("--{flag}{value}")], everything);
            let text = serde_json::to_string(&written).expect("JSON");
            let again = decode(&text).expect("a configuration");
            assert_eq!((again.passed_over, &again.configuration), (vec![], &written), "--{flag}");
            let pointer = format!("/{}", field.replace('.', "/"));
            let (first, now) = (decode(everything).expect("a configuration"), again.configuration);
            let value_of = |written: &KubeProxyConfiguration| {
                serde_json::to_value(written).expect("JSON").pointer(&pointer).cloned()
            };
            assert!(value_of(&now).is_some_and(|value| !value.is_null()), "--{flag}");
            assert_ne!(value_of(&now), value_of(&first.configuration), "--{flag}");
        }
    }

    /// CF-6, CF-7, CF-9, CF-10, CF-12, CF-17: as a `DaemonSet` may start kube-proxy.
    #[test]
    fn flags_of_a_daemon_set_are_followed_or_named() {
        let written = configured(
            &[
                "--proxy-mode=ipvs",
                "--cluster-cidr",
                "10.244.0.0/16",
                "--masquerade-all",
                "--ipvs-sync-period=1m",
                "--ipvs-exclude-cidrs=10.0.0.0/8,10.1.0.0/16",
                "--feature-gates=A=true,B=false",
                "--conntrack-max-per-core=0",
                "--kube-api-qps=5.5",
                "--bind-address=::",
            ],
            "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: nftables\n",
        );
        assert_eq!((written.bind_address.as_deref(), written.mode.as_deref()), (Some("::"), Some("ipvs")));
        assert_eq!(written.back_end().1.and_then(|ipvs| ipvs.sync_period.as_deref()), Some("1m"));
        assert_eq!(written.iptables.as_ref().and_then(|iptables| iptables.masquerade_all), Some(true));
        let named: BTreeSet<String> =
            ignored(&written).expect("fields").into_iter().map(|Ignored { field, .. }| field).collect();
        let expected = [
            "clientConnection.qps",
            "clusterCIDR",
            "featureGates.A",
            "featureGates.B",
            "ipvs.excludeCIDRs",
            "mode",
        ];
        assert_eq!(named.iter().map(String::as_str).collect::<Vec<_>>(), expected);
    }

    /// CF-17: no flag leaves the file as it is.
    #[test]
    fn without_flags_the_file_is_unchanged() {
        let everything = include_str!("testdata/everything.yaml");
        assert_eq!(configured(&[], everything), decode(everything).expect("a configuration").configuration);
        assert_eq!(read(&[]), KubeProxyFlags::default());
    }
}
