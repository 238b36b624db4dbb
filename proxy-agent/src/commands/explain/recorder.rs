//! The maps, recording every lookup that the decision makes.

use std::cell::RefCell;

use proxy_common::{
    Address, AddressBits, Affinity, AffinityKey, ClientAddresses, Endpoint, EndpointState, Found,
    FrontendKey, FrontendKind, Policy, Span, Tables as _, service::EndpointSet,
};

use crate::dataplane::Tables;

/// The maps, recording every lookup.
pub(super) struct Recorder<'a> {
    tables: &'a Tables,
    /// Why the client's last endpoint is unknown, if it is.
    unknown_client: Option<&'static str>,
    steps: RefCell<Steps>,
}

#[derive(Default)]
struct Steps {
    lines: Vec<String>,
    span: Option<Span>,
}

impl<'a> Recorder<'a> {
    pub(super) fn new(tables: &'a Tables, unknown_client: Option<&'static str>) -> Self {
        Self { tables, unknown_client, steps: RefCell::default() }
    }

    fn note(&self, table: &str, key: impl std::fmt::Display, value: impl std::fmt::Display) {
        self.steps.borrow_mut().lines.push(format!("{table:<14} {key} -> {value}"));
    }

    /// The lookups, a line each.
    pub(super) fn lines(self) -> Vec<String> {
        self.steps.into_inner().lines
    }

    /// Whether this is the address of a Service, whatever its ports.
    pub(super) fn is_of_a_service(&self, address: &Address) -> bool {
        let bits = self.tables.address(address);
        bits.has(AddressBits::CLUSTER_IP) || bits.has(AddressBits::VIP)
    }

    /// The endpoints of the set looked up last.
    pub(super) fn candidates(&self) -> Vec<Endpoint> {
        let span = self.steps.borrow().span.unwrap_or(Span { base: 0, count: 0 });
        (span.base..span.base.saturating_add(span.count))
            .filter_map(|slot| self.tables.endpoint(slot))
            .collect()
    }
}

impl proxy_common::Tables for Recorder<'_> {
    fn frontend(&self, key: &FrontendKey) -> Option<Found> {
        let found = self.tables.frontend(key);
        match found {
            Some(found) => {
                let service = found.service;
                let kind = FrontendKind::from_number(found.kind()).map_or("?", FrontendKind::name);
                self.note("FRONTENDS", key, format!("{kind} of service index {service}"));
            }
            None => self.note("FRONTENDS", key, "nothing"),
        }
        found
    }

    fn address(&self, address: &Address) -> AddressBits {
        let bits = self.tables.address(address);
        let names: Vec<&str> = [
            (AddressBits::CLUSTER_IP, "a ClusterIP"),
            (AddressBits::VIP, "a LoadBalancer or external IP"),
            (AddressBits::NODE, "this node's"),
            (AddressBits::SILENT_LOOPBACK, "no NodePorts at loopback"),
        ]
        .into_iter()
        .filter(|(bit, _)| bits.has(*bit))
        .map(|(_, name)| name)
        .collect();
        let text = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
        self.note("ADDRESSES", address, text);
        bits
    }

    fn span(&self, service: u32, set: EndpointSet) -> Option<Span> {
        let span = self.tables.span(service, set);
        self.steps.borrow_mut().span = span;
        let text = match span {
            Some(Span { count: 0, base }) => format!("refuse: {}", proxy_common::Reason::from_number(base)),
            Some(Span { base, count }) => format!("slots {base}..{}", base.saturating_add(count)),
            None => "no such record".to_owned(),
        };
        self.note("SERVICES", format!("{service} {set:?} set"), text);
        span
    }

    fn policy(&self, service: u32) -> Option<Policy> {
        let policy = self.tables.policy(service);
        if let Some(Policy { affinity_seconds, source_set, generation: _ }) = policy {
            if affinity_seconds > 0 {
                let text = format!("ClientIP, {affinity_seconds} s");
                self.note("SERVICES", format!("{service} affinity"), text);
            }
            if source_set > 0 {
                let text = format!("LoadBalancer IPs for set {source_set} only");
                self.note("SERVICES", format!("{service} sources"), text);
            }
        }
        policy
    }

    fn endpoint(&self, slot: u32) -> Option<Endpoint> {
        self.tables.endpoint(slot)
    }

    fn endpoint_state(&self, id: u32) -> Option<EndpointState> {
        let state = self.tables.endpoint_state(id);
        let text = state
            .map_or("no such id".to_owned(), |state| format!("slot {}, bits {:#x}", state.slot, state.bits));
        self.note("ENDPOINT_STATE", id, text);
        state
    }

    fn affinity(&self, key: &AffinityKey) -> Option<Affinity> {
        let affinity = self.tables.affinity(key);
        if let Some(why) = self.unknown_client {
            self.note("AFFINITY", "client", why);
            return affinity;
        }
        let text = affinity
            .map_or("no earlier connection".to_owned(), |found| format!("endpoint id {}", found.endpoint));
        self.note("AFFINITY", "client", text);
        affinity
    }

    fn remember(&self, _: &AffinityKey, _: &Affinity) {}

    fn refresh(&self, _: &AffinityKey, _: u64) {}

    fn admits(&self, service: u32, set: u16, source: &Address) -> bool {
        let admits = self.tables.admits(service, set, source);
        let text = if admits { "in a range" } else { "in no range" };
        self.note("SOURCE_RANGES", format!("{service} set {set} {source}"), text);
        admits
    }

    fn client(&self, cookie: u64) -> Option<ClientAddresses> {
        let found = self.tables.client(cookie);
        let text = found.map_or("not known".to_owned(), |addresses| addresses.to_string());
        self.note("CLIENTS", format!("network namespace {cookie}"), text);
        found
    }
}
