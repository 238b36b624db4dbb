//! A Service, slim: only the fields that decide what a node installs.

use serde::{Deserialize, Serialize};

use super::{
    Flaw, Flaws, ObjectName, SourceRanges, service_fields as fields,
    service_parts::{Listed, ServicePort, TrafficPolicy},
    wire,
};

/// Presence of this label hands a Service to another proxy (IN-1).
const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";

/// What a Service says that matters here. Every value is valid.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Service {
    /// Its name. The store keeps it apart.
    #[serde(skip)]
    pub name: ObjectName,
    /// `metadata.creationTimestamp` in seconds since 1970; `i64::MAX` where there is none.
    pub created: i64,
    /// ClusterIPs, at most one of each family (FE-2).
    pub cluster_ips: Box<[Listed]>,
    /// `spec.externalIPs` (FE-3).
    pub external_ips: Box<[Listed]>,
    /// `status.loadBalancer.ingress[].ip` that nodes answer themselves (FE-5).
    pub load_balancer_ips: Box<[Listed]>,
    /// `spec.ports` (FE-1).
    pub ports: Box<[ServicePort]>,
    /// `spec.internalTrafficPolicy`.
    pub internal: TrafficPolicy,
    /// `spec.externalTrafficPolicy`.
    pub external: TrafficPolicy,
    /// `spec.healthCheckNodePort`, for a load balancer's health checks (HE-3).
    pub health_check_node_port: Option<u16>,
    /// Seconds of ClientIP affinity, 0 for none (ST-2).
    pub affinity_seconds: u32,
    /// `spec.loadBalancerSourceRanges`: who may use the LoadBalancer IPs (ST-1).
    pub source_ranges: Option<Box<SourceRanges>>,
    /// Fields that could not be used.
    pub flaws: Box<[Flaw]>,
}

impl Service {
    /// Checks the fields and keeps the relevant ones. Nothing for a Service that a node ignores: one of another proxy
    /// (IN-1), a headless one, or an `ExternalName` (IN-2).
    pub fn read(wire: wire::Service) -> Option<Self> {
        let wire::Service { metadata, spec, status } = wire;
        let spec = spec.unwrap_or_default();
        let other_proxy = metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(PROXY_NAME));
        if other_proxy || is_skipped(&spec) {
            return None;
        }

        let mut flaws = Flaws::default();
        let (namespace, name) =
            (metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default());
        let ports = if fields::has_valid_name(namespace, name, &mut flaws) {
            fields::ports(&spec, &mut flaws)
        } else {
            Box::default()
        };
        let ranges = spec.load_balancer_source_ranges.as_deref().unwrap_or_default();
        Some(Self {
            name: ObjectName::new(namespace, name),
            created: metadata.creation_timestamp.map_or(i64::MAX, |time| time.0.as_second()),
            cluster_ips: fields::cluster_ips(&spec, &mut flaws),
            external_ips: fields::external_ips(&spec, &mut flaws),
            load_balancer_ips: fields::load_balancer_ips(status.as_ref(), &mut flaws),
            ports,
            internal: fields::policy(
                "spec.internalTrafficPolicy",
                spec.internal_traffic_policy.as_deref(),
                &mut flaws,
            ),
            external: fields::policy(
                "spec.externalTrafficPolicy",
                spec.external_traffic_policy.as_deref(),
                &mut flaws,
            ),
            health_check_node_port: fields::health_check_node_port(&spec, &mut flaws),
            affinity_seconds: fields::affinity_seconds(&spec, &mut flaws),
            source_ranges: SourceRanges::read(ranges, &mut flaws),
            flaws: flaws.finish(),
        })
    }
}

/// IN-2: headless Services and those of type `ExternalName` have no addresses to serve. (One whose ClusterIP is missing
/// altogether is kept: it installs nothing, and its flaw says so.)
fn is_skipped(spec: &wire::ServiceSpec) -> bool {
    let headless = |ip: Option<&str>| ip == Some("None");
    headless(spec.cluster_ip.as_deref())
        || headless(spec.cluster_ips.as_ref().and_then(|ips| ips.first()).map(String::as_str))
        || spec.type_.as_deref() == Some("ExternalName")
}
