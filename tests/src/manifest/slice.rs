//! An EndpointSlice.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use super::{NAMESPACE, Protocol};

/// `endpoints[].conditions`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Conditions {
    /// It accepts new connections.
    pub ready: bool,
    /// It can still answer.
    pub serving: bool,
    /// It is being deleted.
    pub terminating: bool,
}

impl Conditions {
    /// A ready endpoint.
    pub const READY: Self = Self { ready: true, serving: true, terminating: false };
    /// An endpoint that is being deleted and still answers.
    pub const DRAINING: Self = Self { ready: false, serving: true, terminating: true };
    /// An endpoint that does not answer.
    pub const GONE: Self = Self { ready: false, serving: false, terminating: true };
}

/// An EndpointSlice, built field by field. Its family is that of the first endpoint, IPv4 for an empty one.
#[derive(Clone, Debug)]
pub struct EndpointSlice {
    service: String,
    ports: Vec<(String, Protocol, u16)>,
    endpoints: Vec<(IpAddr, Conditions, String)>,
    node: String,
}

impl EndpointSlice {
    /// A slice of this Service without endpoints.
    pub fn new(service: &str) -> Self {
        Self {
            service: service.to_owned(),
            ports: Vec::new(),
            endpoints: Vec::new(),
            node: crate::agent::NODE_NAME.to_owned(),
        }
    }

    /// Adds a port; `name` and `protocol` are those of the Service's port.
    #[must_use]
    pub fn port(mut self, name: &str, protocol: Protocol, port: u16) -> Self {
        self.ports.push((name.to_owned(), protocol, port));
        self
    }

    /// Puts the endpoints added after this call on this node.
    #[must_use]
    pub fn on_node(mut self, node: &str) -> Self {
        node.clone_into(&mut self.node);
        self
    }

    /// Adds an endpoint that is ready.
    #[must_use]
    pub fn ready(self, address: impl Into<IpAddr>) -> Self {
        self.endpoint(address, Conditions::READY)
    }

    /// Adds an endpoint.
    #[must_use]
    pub fn endpoint(mut self, address: impl Into<IpAddr>, conditions: Conditions) -> Self {
        self.endpoints.push((address.into(), conditions, self.node.clone()));
        self
    }
}

impl fmt::Display for EndpointSlice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, ports, endpoints, node: _ } = self;
        let first = endpoints.first().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |(address, ..)| *address);
        let family = if first.is_ipv4() { "IPv4" } else { "IPv6" };
        writeln!(f, "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:")?;
        writeln!(f, "  name: {service}-{}\n  namespace: {NAMESPACE}", family.to_lowercase())?;
        writeln!(f, "  labels:\n    kubernetes.io/service-name: {service}\naddressType: {family}")?;
        writeln!(f, "ports:{}", if ports.is_empty() { " []" } else { "" })?;
        for (name, protocol, port) in ports {
            writeln!(f, "- name: \"{name}\"\n  protocol: {protocol}\n  port: {port}")?;
        }
        writeln!(f, "endpoints:{}", if endpoints.is_empty() { " []" } else { "" })?;
        for (address, Conditions { ready, serving, terminating }, node) in endpoints {
            writeln!(f, "- addresses: [\"{address}\"]\n  nodeName: {node}")?;
            writeln!(f, "  conditions: {{ready: {ready}, serving: {serving}, terminating: {terminating}}}")?;
        }
        Ok(())
    }
}
