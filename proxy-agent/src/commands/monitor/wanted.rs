//! What is asked for: most of it is the kernel programs' to know, the rest is looked at here.

use std::{collections::HashSet, net::SocketAddr};

use anyhow::bail;
use proxy_common::{Address, Event, FrontendKey, Happening, Listener, NodeEvent, Port, Reason, RefusedPair};

use super::{Arguments, LOSSES, guide::Guide};
use crate::commands::names::{Client, Destination, Pods, ServiceName};

/// What is asked for.
pub(super) struct Wanted {
    pub(super) listener: Listener,
    of: Of,
}

/// Of which Services.
enum Of {
    All,
    /// The one of this name: its ports' indexes and frontends, and the addresses of all its ports unless one is named.
    Service {
        name: ServiceName,
        indexes: HashSet<u32>,
        frontends: HashSet<FrontendKey>,
        addresses: HashSet<Address>,
    },
    /// The one at this address.
    Frontend {
        key: FrontendKey,
        index: u32,
    },
}

impl Wanted {
    pub(super) fn of(arguments: &Arguments, guide: &Guide) -> anyhow::Result<Self> {
        let of = match &arguments.service {
            None => Of::All,
            Some(Destination::Address { address, protocol }) => at(guide, *address, *protocol as u8),
            Some(Destination::Service(name)) => service(guide, name.clone())?,
        };
        let report = guide.report.as_ref();
        let marks = arguments.client.as_ref().map(|client| Client::of(client, report)).transpose()?;
        let marks = marks.map(|client| client.marks(&Pods::of(report))).unwrap_or_default();
        if marks.is_empty() && arguments.client.is_some() {
            bail!(
                "nothing is known of this client that an event would have: name one outside by its address; of network namespaces \
                 kernels tell processes since 5.14"
            );
        }
        let anybody = u32::from(arguments.client.is_none());
        let mut listener = Listener { sample: arguments.sample, anybody, ..Listener::EVERYTHING };
        for (to, mark) in listener.clients.iter_mut().zip(marks) {
            *to = mark;
        }
        let kinds = Happening::ALL.into_iter().map(|kind| (kind.name(), kind as u32));
        listener.happenings = bits(&arguments.only, kinds);
        if !arguments.reason.is_empty() {
            listener.happenings &= 1 << Happening::Refused as u32;
        }
        listener.reasons = bits(&arguments.reason, reasons());
        listener.services = of.bits();
        Ok(Self { listener, of })
    }

    /// Looks once more which Services these are: one that is made again has another index. Returns whether it has.
    pub(super) fn follow(&mut self, guide: &Guide) -> bool {
        let now = match &self.of {
            Of::All => return false,
            Of::Service { name, .. } => service(guide, name.clone()).ok(),
            Of::Frontend { key, .. } => {
                Some(at(guide, SocketAddr::new(key.address.into(), key.port.get()), key.protocol))
            }
        };
        // While it is gone, nothing is heard of it.
        let Some(now) = now else { return false };
        self.of = now;
        let services = self.of.bits();
        std::mem::replace(&mut self.listener.services, services) != services
    }

    /// Whether this event is wanted, as far as the kernel programs do not know it.
    pub(super) fn has(&self, event: &Event) -> bool {
        let Event { frontend, frontend_port, protocol, service, .. } = *event;
        self.is_of_wanted_service(service, &FrontendKey::new(frontend, frontend_port, protocol))
    }

    /// Whether this recorded refusal is.
    pub(super) fn has_recorded(&self, pair: &RefusedPair) -> bool {
        let RefusedPair { what, service, client, frontend } = pair;
        // The Service had perhaps another index then.
        let wishes = Listener { services: Of::All.bits(), ..self.listener };
        wishes.wants(Happening::Refused, *what, *service, client)
            && self.is_of_wanted_service(*service, frontend)
    }

    fn is_of_wanted_service(&self, index: u32, frontend: &FrontendKey) -> bool {
        match &self.of {
            Of::All => true,
            Of::Service { indexes, frontends, addresses, .. } => {
                let node_port = FrontendKey::node_port(&frontend.address, frontend.port, frontend.protocol);
                indexes.contains(&index)
                    || frontends.contains(frontend)
                    || frontends.contains(&node_port)
                    || (index == RefusedPair::NO_SERVICE && addresses.contains(&frontend.address))
            }
            Of::Frontend { key, .. } => key == frontend,
        }
    }
}

impl Of {
    /// The Services whose events the kernel programs are to tell, and what they know no Service of.
    fn bits(&self) -> [u64; Listener::SERVICE_WORDS] {
        let mut bits = [0; Listener::SERVICE_WORDS];
        let mut add = |service| {
            let (word, bit) = Listener::service_bit(service);
            bits[word] |= bit;
        };
        match self {
            Self::All => return [u64::MAX; Listener::SERVICE_WORDS],
            Self::Service { indexes, .. } => indexes.iter().copied().for_each(&mut add),
            Self::Frontend { index, .. } => add(*index),
        }
        add(RefusedPair::NO_SERVICE);
        bits
    }
}

fn service(guide: &Guide, name: ServiceName) -> anyhow::Result<Of> {
    let ports = name.ports(&guide.tables, guide.report.as_ref())?;
    let frontends: HashSet<FrontendKey> =
        ports.iter().flat_map(|port| &port.frontends).map(|(key, _)| *key).collect();
    let mut addresses = HashSet::new();
    if !name.names_a_port() {
        addresses.extend(frontends.iter().filter(|key| key.any_address == 0).map(|key| key.address));
    }
    let indexes = ports.iter().map(|port| port.index).collect();
    Ok(Of::Service { name, indexes, frontends, addresses })
}

fn at(guide: &Guide, address: SocketAddr, protocol: u8) -> Of {
    let key = FrontendKey::new(Address::from(address.ip()), Port::new(address.port()), protocol);
    let node_port = FrontendKey::node_port(&key.address, key.port, protocol);
    let found = [key, node_port].into_iter().find_map(|key| guide.tables.frontends.get(&key, 0).ok());
    Of::Frontend { key, index: found.map_or(RefusedPair::NO_SERVICE, |found| found.service) }
}

/// Everything that a refusal may be for, by name.
fn reasons() -> impl Iterator<Item = (&'static str, u32)> {
    let reasons = Reason::ALL.into_iter().map(|reason| (reason.name(), reason as u32));
    reasons.chain(LOSSES.into_iter().map(|loss: NodeEvent| (loss.name(), loss as u32)))
}

/// A bit for each of these names; all bits if there are none.
fn bits(names: &[String], all: impl Iterator<Item = (&'static str, u32)>) -> u32 {
    if names.is_empty() {
        return u32::MAX;
    }
    all.filter(|(name, _)| names.iter().any(|wanted| wanted == name))
        .fold(0, |bits, (_, bit)| bits | 1 << bit)
}
