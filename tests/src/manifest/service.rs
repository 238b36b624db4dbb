//! A Service.

use std::{fmt, net::IpAddr};

use super::{NAMESPACE, Protocol};

/// A Service, built field by field.
#[derive(Clone, Debug)]
pub struct Service {
    name: String,
    kind: &'static str,
    cluster_ips: Vec<IpAddr>,
    ports: Vec<Port>,
    external_ips: Vec<IpAddr>,
    ingress: Vec<(IpAddr, &'static str)>,
    source_ranges: Vec<String>,
    affinity_seconds: Option<u32>,
    internal_local: bool,
    external_local: bool,
}

#[derive(Clone, Debug)]
struct Port {
    name: String,
    protocol: Protocol,
    number: u16,
    on_node: u16,
}

impl Service {
    /// A Service with these ClusterIPs, the first of each family.
    pub fn new(name: &str, cluster_ips: &[&str]) -> Self {
        let cluster_ips = cluster_ips.iter().map(|ip| ip.parse().expect("a ClusterIP")).collect();
        Self {
            name: name.to_owned(),
            kind: "ClusterIP",
            cluster_ips,
            ports: Vec::new(),
            external_ips: Vec::new(),
            ingress: Vec::new(),
            source_ranges: Vec::new(),
            affinity_seconds: None,
            internal_local: false,
            external_local: false,
        }
    }

    /// Adds a port.
    #[must_use]
    pub fn port(mut self, name: &str, protocol: Protocol, port: u16) -> Self {
        self.ports.push(Port { name: name.to_owned(), protocol, number: port, on_node: 0 });
        self
    }

    /// Gives the port that was added last a NodePort.
    #[must_use]
    pub fn node_port(mut self, node_port: u16) -> Self {
        self.kind = "NodePort";
        self.ports.last_mut().expect("a port").on_node = node_port;
        self
    }

    /// Adds an external IP.
    #[must_use]
    pub fn external_ip(mut self, address: impl Into<IpAddr>) -> Self {
        self.external_ips.push(address.into());
        self
    }

    /// Adds an ingress IP of a load balancer, with `ipMode` VIP or Proxy.
    #[must_use]
    pub fn load_balancer(mut self, address: impl Into<IpAddr>, ip_mode: &'static str) -> Self {
        self.kind = "LoadBalancer";
        self.ingress.push((address.into(), ip_mode));
        self
    }

    /// Replaces `loadBalancerSourceRanges`.
    #[must_use]
    pub fn source_ranges(mut self, ranges: &[&str]) -> Self {
        self.source_ranges = ranges.iter().map(ToString::to_string).collect();
        self
    }

    /// `sessionAffinity: ClientIP` with this timeout.
    #[must_use]
    pub const fn client_ip_affinity(mut self, seconds: u32) -> Self {
        self.affinity_seconds = Some(seconds);
        self
    }

    /// `internalTrafficPolicy: Local`.
    #[must_use]
    pub const fn internal_traffic_local(mut self) -> Self {
        self.internal_local = true;
        self
    }

    /// `externalTrafficPolicy: Local`.
    #[must_use]
    pub const fn external_traffic_local(mut self) -> Self {
        self.external_local = true;
        self
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, kind, cluster_ips, ports, external_ips, .. } = self;
        writeln!(f, "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  namespace: {NAMESPACE}")?;
        writeln!(f, "spec:\n  type: {kind}")?;
        if let Some(first) = cluster_ips.first() {
            writeln!(f, "  clusterIP: \"{first}\"\n  clusterIPs:")?;
            cluster_ips.iter().try_for_each(|ip| writeln!(f, "  - \"{ip}\""))?;
            writeln!(f, "  ipFamilies:")?;
            for ip in cluster_ips {
                writeln!(f, "  - {}", if ip.is_ipv4() { "IPv4" } else { "IPv6" })?;
            }
        }
        if !external_ips.is_empty() {
            writeln!(f, "  externalIPs:")?;
            external_ips.iter().try_for_each(|ip| writeln!(f, "  - \"{ip}\""))?;
        }
        if !self.source_ranges.is_empty() {
            writeln!(f, "  loadBalancerSourceRanges:")?;
            self.source_ranges.iter().try_for_each(|range| writeln!(f, "  - \"{range}\""))?;
        }
        if let Some(seconds) = self.affinity_seconds {
            writeln!(f, "  sessionAffinity: ClientIP\n  sessionAffinityConfig:")?;
            writeln!(f, "    clientIP:\n      timeoutSeconds: {seconds}")?;
        }
        if self.internal_local {
            writeln!(f, "  internalTrafficPolicy: Local")?;
        }
        if self.external_local {
            writeln!(f, "  externalTrafficPolicy: Local")?;
        }
        writeln!(f, "  ports:")?;
        for Port { name, protocol, number, on_node } in ports {
            writeln!(f, "  - name: \"{name}\"\n    protocol: {protocol}\n    port: {number}")?;
            if *on_node != 0 {
                writeln!(f, "    nodePort: {on_node}")?;
            }
        }
        if !self.ingress.is_empty() {
            writeln!(f, "status:\n  loadBalancer:\n    ingress:")?;
            for (ip, mode) in &self.ingress {
                writeln!(f, "    - ip: \"{ip}\"\n      ipMode: {mode}")?;
            }
        }
        Ok(())
    }
}
