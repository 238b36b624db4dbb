//! Fields of the file that are set but have no effect here, and why.
//!
//! An operator who moves a configuration over must not have to guess: the agent logs each such field when it starts.
//! Empty and zero fields do not count as set, since kubeadm writes every field.

use serde_json::Value;

use super::KubeProxyConfiguration;

/// A field that says something without effect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Ignored {
    /// Its path, such as `conntrack.maxPerCore`.
    pub(super) field: String,
    /// Why it has no effect.
    pub(super) because: &'static str,
}

const REQUESTS: &str = "the agent holds a few watches, in JSON, and limits no requests"; // CF-1
const GATES: &str = "Sidestep has none of kube-proxy's feature gates"; // CF-6
const LOGGING: &str = "`--log` sets the log filter, and there is no profiler"; // CF-6
const METRICS: &str = "there are no hidden metrics"; // CF-6
const MODE: &str = "Sidestep has one mode; this field only selects the back end whose syncPeriod counts"; // CF-7
const LOCAL: &str = "the hook tells east-west from north-south traffic, not the client's address"; // CF-9
const MASQUERADE: &str = "connection records replace the packet mark"; // CF-10
const LOOPBACK: &str = "only iptables.localhostNodePorts counts, as in kube-proxy"; // CF-11
const PERIOD: &str = "changes are installed without delay; only the syncPeriod of `mode` counts, as the limit \
                      for /healthz"; // CF-12
const RESYNC: &str = "the agent lists again only when a watch breaks"; // CF-13
const CONNTRACK: &str = "Sidestep does not use conntrack and sets none of its sysctls"; // CF-14
const OTHER: &str = "it belongs to a back end or system that Sidestep does not have"; // CF-16

/// Fields without effect, with everything that is in them.
const WITHOUT_EFFECT: [(&str, &str); 18] = [
    ("clientConnection.acceptContentTypes", REQUESTS),
    ("clientConnection.burst", REQUESTS),
    ("clientConnection.contentType", REQUESTS),
    ("clientConnection.qps", REQUESTS),
    ("clusterCIDR", LOCAL),
    ("configSyncPeriod", RESYNC),
    ("conntrack.maxPerCore", CONNTRACK),
    ("conntrack.min", CONNTRACK),
    ("conntrack.tcpBeLiberal", CONNTRACK),
    ("detectLocal", LOCAL),
    ("detectLocalMode", LOCAL),
    ("enableProfiling", LOGGING),
    ("featureGates", GATES),
    ("logging", LOGGING),
    ("mode", MODE),
    ("showHiddenMetricsForVersion", METRICS),
    ("windowsRunAsService", OTHER),
    ("winkernel", OTHER),
];

/// The fields of `written` that say something without effect, in order.
pub(super) fn ignored(written: &KubeProxyConfiguration) -> serde_json::Result<Vec<Ignored>> {
    let mut fields = Vec::new();
    said("", &serde_json::to_value(written)?, &mut fields);
    let (chosen, _) = written.back_end();
    let ignored = |field: String| because(&field, chosen).map(|because| Ignored { field, because });
    Ok(fields.into_iter().filter_map(ignored).collect())
}

/// Why a field has no effect, if it has none.
fn because(field: &str, chosen: &str) -> Option<&'static str> {
    if let Some((back_end @ ("iptables" | "ipvs" | "nftables"), field)) = field.split_once('.') {
        return of_back_end(back_end, field, chosen);
    }
    let is_in =
        |part: &str| field.strip_prefix(part).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    WITHOUT_EFFECT.iter().find(|(part, _)| is_in(part)).map(|(_, because)| *because)
}

/// Why a field of a back end has no effect, if it has none; `chosen` is the one that `mode` names.
fn of_back_end(back_end: &str, field: &str, chosen: &str) -> Option<&'static str> {
    match field {
        "syncPeriod" if back_end == chosen => None,
        "syncPeriod" | "minSyncPeriod" => Some(PERIOD),
        "localhostNodePorts" if back_end == "iptables" => None,
        "localhostNodePorts" => Some(LOOPBACK),
        "masqueradeAll" => None,
        "masqueradeBit" => Some(MASQUERADE),
        _ => Some(OTHER),
    }
}

/// The paths of everything below `value` that says something.
fn said(path: &str, value: &Value, fields: &mut Vec<String>) {
    let says = match value {
        Value::Object(members) => {
            for (name, member) in members {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                // A gate that is off says as much as one that is on.
                match member {
                    Value::Bool(false) if path.starts_with("featureGates.") => fields.push(path),
                    _ => said(&path, member, fields),
                }
            }
            false
        }
        Value::Null | Value::Bool(false) => false,
        Value::Bool(true) => true,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !matches!(text.as_str(), "" | "0" | "0s"),
        Value::Array(elements) => !elements.is_empty(),
    };
    if says {
        fields.push(path.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::decode;

    fn names(text: &str) -> Vec<String> {
        let decoded = decode(text).expect("a configuration");
        assert_eq!(decoded.passed_over, []);
        let found = ignored(&decoded.configuration).expect("fields");
        found.into_iter().map(|ignored| ignored.field).collect()
    }

    /// CF-9: of what kubeadm writes, one field says something that has no effect.
    #[test]
    fn what_kubeadm_writes_says_little() {
        assert_eq!(names(include_str!("testdata/kubeadm.yaml")), ["clusterCIDR"]);
    }

    /// CF-1 to CF-17: every field that there is either counts or is named, and none is forgotten.
    #[test]
    fn every_field_counts_or_is_named() {
        let text = include_str!("testdata/everything.yaml");
        let (named, decoded) = (names(text), decode(text).expect("a configuration"));
        let written = serde_json::to_value(decoded.configuration).expect("JSON");
        let mut fields = Vec::new();
        said("", &written, &mut fields);
        assert_eq!(fields.len(), leaves(&written), "the file leaves a field out");
        let followed: Vec<String> = fields.into_iter().filter(|field| !named.contains(field)).collect();
        assert_eq!(
            followed,
            [
                "apiVersion",
                "bindAddress",
                "bindAddressHardFail",
                "clientConnection.kubeconfig",
                "conntrack.tcpCloseWaitTimeout",
                "conntrack.tcpEstablishedTimeout",
                "conntrack.udpStreamTimeout",
                "conntrack.udpTimeout",
                "healthzBindAddress",
                "hostnameOverride",
                "iptables.localhostNodePorts",
                "iptables.masqueradeAll",
                "ipvs.masqueradeAll",
                "kind",
                "metricsBindAddress",
                "nftables.masqueradeAll",
                "nftables.syncPeriod",
                "nodePortAddresses",
                "oomScoreAdj",
                "portRange",
            ]
        );
    }

    fn leaves(value: &Value) -> usize {
        match value {
            Value::Object(members) => members.values().map(leaves).sum(),
            _ => 1,
        }
    }
}
