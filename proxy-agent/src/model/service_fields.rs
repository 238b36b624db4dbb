//! Reading a Service's fields one by one: each function takes what was written, gives what is valid, and
//! names the rest.

use std::collections::HashSet;

use super::{
    Flaws,
    address::parse_vip,
    port,
    service_parts::{Listed, ServicePort, TrafficPolicy},
    wire::{ServiceSpec, ServiceStatus},
};

/// The most bytes of a namespace, a name or a port's name: they are DNS labels.
const NAME_LIMIT: usize = 63;

/// Names are DNS labels: what is longer cannot have come from an API server, and has no room in the tables.
pub(super) fn has_valid_name(namespace: &str, name: &str, flaws: &mut Flaws) -> bool {
    let mut valid = true;
    for (field, value) in [("metadata.namespace", namespace), ("metadata.name", name)] {
        if value.len() > NAME_LIMIT {
            valid = false;
            flaws.add(
                || field.into(),
                || format!("{} bytes, more than a name may have, so it is not installed; shorten it to {NAME_LIMIT} at most", value.len()),
            );
        }
    }
    valid
}

/// FE-2: `clusterIPs`, or `clusterIP` where there is no list; one of each family.
pub(super) fn cluster_ips(spec: &ServiceSpec, flaws: &mut Flaws) -> Box<[Listed]> {
    let listed = spec.cluster_ips.as_deref().unwrap_or_default();
    let single = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty());
    let families = spec.ip_families.as_deref().unwrap_or_default();
    if listed.is_empty() && single.is_none() {
        flaws.add(|| "spec.clusterIP".into(), || "no address is assigned; write one".into());
    }
    let mut kept: Vec<Listed> = Vec::new();
    let texts: Vec<&str> = if listed.is_empty() {
        single.into_iter().collect()
    } else {
        listed.iter().map(String::as_str).collect()
    };
    for (index, text) in texts.into_iter().enumerate() {
        let field =
            || if listed.is_empty() { "spec.clusterIP".into() } else { format!("spec.clusterIPs[{index}]") };
        let address = match parse_vip(text) {
            Ok(address) => address,
            Err(error) => {
                flaws.add(field, || error);
                continue;
            }
        };
        let family = if address.is_v4() { "IPv4" } else { "IPv6" };
        if let Some(declared) = families.get(index)
            && declared != family
        {
            flaws.add(field, || {
                format!("{text} is {family}, but spec.ipFamilies[{index}] is {declared}; make them agree")
            });
        } else if kept.iter().any(|other| other.address.is_v4() == address.is_v4()) {
            flaws.add(field, || format!("a second {family} address; keep one of each family"));
        } else {
            kept.push(Listed { index: position(index), address });
        }
    }
    kept.into()
}

/// FE-3: every valid one; of any type of Service.
pub(super) fn external_ips(spec: &ServiceSpec, flaws: &mut Flaws) -> Box<[Listed]> {
    let mut kept = Vec::new();
    for (index, text) in spec.external_ips.iter().flatten().enumerate() {
        match parse_vip(text) {
            Ok(address) => kept.push(Listed { index: position(index), address }),
            Err(error) => flaws.add(|| format!("spec.externalIPs[{index}]"), || error),
        }
    }
    kept.into()
}

/// FE-5: addresses that the node answers itself (ipMode nil or VIP). Host names, and addresses of a load
/// balancer that wants to see the traffic (ipMode Proxy), are not for us.
pub(super) fn load_balancer_ips(status: Option<&ServiceStatus>, flaws: &mut Flaws) -> Box<[Listed]> {
    let ingress = status.and_then(|status| status.load_balancer.as_ref()?.ingress.as_deref());
    let mut kept = Vec::new();
    for (index, entry) in ingress.unwrap_or_default().iter().enumerate() {
        let Some(ip) = entry.ip.as_deref().filter(|ip| !ip.is_empty()) else { continue };
        if entry.ip_mode.as_deref().is_some_and(|mode| mode != "VIP") {
            continue;
        }
        match parse_vip(ip) {
            Ok(address) => kept.push(Listed { index: position(index), address }),
            Err(error) => flaws.add(|| format!("status.loadBalancer.ingress[{index}].ip"), || error),
        }
    }
    kept.into()
}

/// FE-1: ports by name and protocol; `targetPort` and `appProtocol` say nothing to a proxy.
pub(super) fn ports(spec: &ServiceSpec, flaws: &mut Flaws) -> Box<[ServicePort]> {
    let mut seen = HashSet::new();
    let mut kept = Vec::new();
    for (index, port) in spec.ports.iter().flatten().enumerate() {
        let field = |name: &str| format!("spec.ports[{index}].{name}");
        let protocol = match port::protocol(port.protocol.as_deref()) {
            Ok(protocol) => protocol,
            Err(error) => {
                flaws.add(|| field("protocol"), || error);
                continue;
            }
        };
        let number = match port::number(port.port.unwrap_or(0)) {
            Ok(number) => number,
            Err(error) => {
                flaws.add(|| field("port"), || error);
                continue;
            }
        };
        let name = port.name.as_deref().unwrap_or_default();
        if name.len() > NAME_LIMIT {
            flaws.add(
                || field("name"),
                || format!("longer than a name may be; shorten it to {NAME_LIMIT} bytes at most"),
            );
            continue;
        }
        if !seen.insert((name, protocol)) {
            flaws.add(
                || field("name"),
                || format!("a second {protocol} port named `{name}`; give each port a name of its own"),
            );
            continue;
        }
        kept.push(ServicePort {
            index: position(index),
            name: name.into(),
            protocol,
            port: number,
            node_port: node_port(port.node_port, || field("nodePort"), flaws),
        });
    }
    kept.into()
}

/// FE-4: 0 and nothing mean none.
fn node_port(written: Option<i64>, field: impl FnOnce() -> String, flaws: &mut Flaws) -> Option<u16> {
    match port::number(written.filter(|port| *port != 0)?) {
        Ok(port) => Some(port),
        Err(error) => {
            flaws.add(field, || error);
            None
        }
    }
}

/// A traffic policy; Cluster unless something is written.
pub(super) fn policy(field: &str, text: Option<&str>, flaws: &mut Flaws) -> TrafficPolicy {
    match text {
        None | Some("" | "Cluster") => TrafficPolicy::Cluster,
        Some("Local") => TrafficPolicy::Local,
        Some(other) => {
            let message =
                || format!("`{other}` is not a traffic policy, so Cluster applies; write Cluster or Local");
            flaws.add(|| field.into(), message);
            TrafficPolicy::Cluster
        }
    }
}

/// HE-3: only of a LoadBalancer whose `externalTrafficPolicy` is Local; 0 means none.
pub(super) fn health_check_node_port(spec: &ServiceSpec, flaws: &mut Flaws) -> Option<u16> {
    let asked = spec.type_.as_deref() == Some("LoadBalancer")
        && spec.external_traffic_policy.as_deref() == Some("Local");
    let written = spec.health_check_node_port.filter(|port| asked && *port != 0)?;
    port::number(written).map_err(|error| flaws.add(|| "spec.healthCheckNodePort".into(), || error)).ok()
}

/// ST-2: 1 to 86400 seconds, 10800 by default; 0 without ClientIP affinity.
pub(super) fn affinity_seconds(spec: &ServiceSpec, flaws: &mut Flaws) -> u32 {
    const DEFAULT: u32 = 10_800;
    match spec.session_affinity.as_deref() {
        None | Some("" | "None") => return 0,
        Some("ClientIP") => {}
        Some(other) => {
            let message =
                || format!("`{other}` is not a session affinity, so None applies; write None or ClientIP");
            flaws.add(|| "spec.sessionAffinity".into(), message);
            return 0;
        }
    }
    let config = spec.session_affinity_config.as_ref();
    let Some(written) = config.and_then(|config| config.client_ip.as_ref()?.timeout_seconds) else {
        return DEFAULT;
    };
    if let Ok(seconds @ 1..=86_400) = u32::try_from(written) {
        return seconds;
    }
    flaws.add(
        || "spec.sessionAffinityConfig.clientIP.timeoutSeconds".into(),
        || {
            format!(
                "{written} is not within 1 to 86400, so {DEFAULT} applies; write a number within that range"
            )
        },
    );
    DEFAULT
}

/// A position in a list, for naming the field; no list of an API object is longer.
fn position(index: usize) -> u16 {
    u16::try_from(index).unwrap_or(u16::MAX)
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
