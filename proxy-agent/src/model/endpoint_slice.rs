//! An EndpointSlice, slim: a large cluster has ten thousand of them, and every node keeps them all.
//!
//! Names of nodes and zones repeat within a slice, so endpoints refer to tables of the slice.

use std::collections::BTreeMap;

use proxy_common::{Address, Protocol};
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use super::{Flaw, Flaws, ObjectName, address, port, wire};

/// Presence of this label marks slices of headless Services (IN-3).
const HEADLESS: &str = "service.kubernetes.io/headless";
/// The label that says which Service a slice belongs to.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// What an EndpointSlice says that matters here. Every value is valid.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EndpointSlice {
    /// Its name. The store keeps it apart.
    #[serde(skip)]
    pub name: ObjectName,
    /// Its Service, which is in the same namespace (IN-3). The store keeps it apart.
    #[serde(skip)]
    pub service: ObjectName,
    /// `ports` that lead somewhere (EP-3).
    pub ports: Box<[EndpointPort]>,
    /// `endpoints` that have an address (EP-2), all of the slice's own family (EP-1).
    pub endpoints: Box<[Endpoint]>,
    /// Time of the change that led to this version, in milliseconds since 1970; 0 if unknown.
    pub triggered: i64,
    nodes: Box<[Box<str>]>,
    hints: Box<[Hints]>,
    /// Fields that could not be used.
    pub flaws: Box<[Flaw]>,
}

/// A port of all endpoints of a slice.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EndpointPort {
    /// The Service port's name.
    pub name: SmolStr,
    /// Its protocol.
    pub protocol: Protocol,
    /// Where the pods listen.
    pub port: u16,
}

/// An endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its first address (EP-2).
    pub address: Address,
    node: Option<u16>,
    hints: Option<u16>,
    /// Its conditions.
    pub conditions: Conditions,
}

/// Conditions with their defaults (EP-4).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Conditions {
    /// New connections may go here.
    pub ready: bool,
    /// It answers.
    pub serving: bool,
    /// It is terminating.
    pub terminating: bool,
}

/// Which nodes and zones an endpoint is meant for (EP-11).
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Hints {
    /// `forNodes`.
    pub nodes: Box<[Box<str>]>,
    /// `forZones`.
    pub zones: Box<[Box<str>]>,
}

impl EndpointSlice {
    /// The most endpoints of one slice, as the API has it.
    pub const LIMIT: usize = 1000;

    /// Checks the fields and keeps the relevant ones. Nothing for a slice that a node ignores: of a headless Service or
    /// of no Service (IN-3), or of host names (EP-1).
    pub fn read(wire: wire::EndpointSlice) -> Option<Self> {
        let wire::EndpointSlice { metadata, address_type, endpoints, ports } = wire;
        let mut labels = metadata.labels.unwrap_or_default();
        let service = labels.remove(SERVICE_NAME).filter(|name| !name.is_empty())?;
        let address_type = address_type.unwrap_or_default();
        if labels.contains_key(HEADLESS) || address_type == "FQDN" {
            return None;
        }

        let mut flaws = Flaws::default();
        let mut reading = Reading { flaws: &mut flaws, nodes: Vec::new(), hints: Vec::new() };
        let endpoints = reading.endpoints(endpoints.unwrap_or_default(), &address_type);
        let ports = reading.ports(ports.unwrap_or_default());
        let Reading { nodes, hints, .. } = reading;
        let namespace = metadata.namespace.as_deref().unwrap_or_default();
        Some(Self {
            name: ObjectName::new(namespace, metadata.name.as_deref().unwrap_or_default()),
            service: ObjectName::new(namespace, &service),
            ports,
            endpoints,
            triggered: metadata.annotations.as_ref().map_or(0, triggered),
            nodes: nodes.into(),
            hints: hints.into(),
            flaws: flaws.finish(),
        })
    }

    /// The endpoint's `nodeName`.
    pub fn node_of(&self, endpoint: &Endpoint) -> Option<&str> {
        self.nodes.get(usize::from(endpoint.node?)).map(|name| &**name)
    }

    /// The endpoint's hints.
    pub fn hints_of(&self, endpoint: &Endpoint) -> Option<&Hints> {
        self.hints.get(usize::from(endpoint.hints?))
    }
}

/// The annotation of the endpoints controller; what is not a time says nothing.
fn triggered(annotations: &BTreeMap<String, String>) -> i64 {
    let written = annotations.get(wire::metadata::TRIGGERED);
    written.and_then(|text| text.parse::<jiff::Timestamp>().ok()).map_or(0, jiff::Timestamp::as_millisecond)
}

/// A slice while it is being read.
struct Reading<'a> {
    flaws: &'a mut Flaws,
    nodes: Vec<Box<str>>,
    hints: Vec<Hints>,
}

impl Reading<'_> {
    fn endpoints(&mut self, mut written: Vec<wire::Endpoint>, address_type: &str) -> Box<[Endpoint]> {
        let is_v4 = match address_type {
            "IPv4" => true,
            "IPv6" => false,
            other => {
                self.flaws.add(
                    || "addressType".into(),
                    || format!("`{other}` is not an address type of endpoints; write IPv4 or IPv6"),
                );
                return Box::default();
            }
        };
        let count = written.len();
        if count > EndpointSlice::LIMIT {
            written.truncate(EndpointSlice::LIMIT);
            self.flaws.add(
                || "endpoints".into(),
                || {
                    format!(
                        "{count} endpoints, more than a slice may hold, so only the first {limit} are used; \
                         split it into slices of at most {limit}",
                        limit = EndpointSlice::LIMIT,
                    )
                },
            );
        }
        let read = |(index, endpoint)| self.endpoint(index, endpoint, is_v4);
        written.into_iter().enumerate().filter_map(read).collect()
    }

    /// EP-2: only the first address counts, and an endpoint without one is none.
    fn endpoint(&mut self, index: usize, written: wire::Endpoint, is_v4: bool) -> Option<Endpoint> {
        let wire::Endpoint { addresses, conditions, node_name, hints } = written;
        let text = addresses?.into_iter().next()?;
        let address = address::parse_unicast(&text).and_then(|address| {
            let family = if is_v4 { "IPv4" } else { "IPv6" };
            if address.is_v4() == is_v4 {
                Ok(address)
            } else {
                Err(format!(
                    "{text} is not {family}, as addressType declares; put it into a slice of its own"
                ))
            }
        });
        let address = match address {
            Ok(address) => address,
            Err(error) => {
                self.flaws.add(|| format!("endpoints[{index}].addresses[0]"), || error);
                return None;
            }
        };
        let node = node_name.filter(|name| !name.is_empty());
        Some(Endpoint {
            address,
            node: node.and_then(|name| intern(&mut self.nodes, name.into())),
            hints: hints.map(Hints::read).and_then(|hints| intern(&mut self.hints, hints)),
            conditions: Conditions::read(&conditions.unwrap_or_default()),
        })
    }

    /// EP-3: a port without a name, or without a number, is none.
    fn ports(&mut self, written: Vec<wire::EndpointPort>) -> Box<[EndpointPort]> {
        let mut kept = Vec::with_capacity(written.len());
        for (index, wire::EndpointPort { name, protocol, port }) in written.into_iter().enumerate() {
            let (Some(name), Some(number)) = (name, port) else { continue };
            match (port::protocol(protocol.as_deref()), port::number(number)) {
                (Ok(protocol), Ok(port)) => kept.push(EndpointPort { name: name.into(), protocol, port }),
                (Err(error), _) => self.flaws.add(|| format!("ports[{index}].protocol"), || error),
                (_, Err(error)) => self.flaws.add(|| format!("ports[{index}].port"), || error),
            }
        }
        kept.into()
    }
}

impl Conditions {
    /// EP-4: nothing written means ready, serving and not terminating.
    fn read(written: &wire::Conditions) -> Self {
        let &wire::Conditions { ready, serving, terminating } = written;
        Self {
            ready: ready.unwrap_or(true),
            serving: serving.unwrap_or(true),
            terminating: terminating.unwrap_or(false),
        }
    }
}

impl Hints {
    fn read(written: wire::Hints) -> Self {
        let wire::Hints { for_nodes, for_zones } = written;
        let names = |targets: Option<Vec<wire::HintTarget>>| {
            targets.into_iter().flatten().map(|target| target.name.into()).collect()
        };
        Self { nodes: names(for_nodes), zones: names(for_zones) }
    }
}

/// The position of `value` in a table of a slice. The last entries are tried first: neighbours are alike.
fn intern<T: PartialEq>(table: &mut Vec<T>, value: T) -> Option<u16> {
    let position = table.iter().rposition(|known| *known == value).unwrap_or_else(|| {
        table.push(value);
        table.len() - 1
    });
    u16::try_from(position).ok()
}

#[cfg(test)]
#[path = "endpoint_slice_tests.rs"]
mod tests;
