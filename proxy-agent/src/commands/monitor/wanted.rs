//! What is asked for: most of it is the kernel programs' to know, the rest is looked at here.

use std::{
    collections::{BTreeSet, HashSet},
    net::SocketAddr,
};

use anyhow::bail;
use proxy_common::{Address, Event, FrontendKey, Happening, Listener, NodeEvent, Port, Reason, RefusedPair};

use super::{Arguments, LOSSES, guide::Guide, say};
use crate::commands::{
    inventory,
    names::{Client, ClientName, Destination, Pods, ServiceName},
};

/// What is asked for.
pub(super) struct Wanted {
    pub(super) listener: Listener,
    of: Of,
    client: Option<ClientName>,
    /// What events know the client by; nothing for all.
    marks: Option<BTreeSet<Address>>,
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
        let refusals = 1 << Happening::Refused as u32;
        let kinds = Happening::ALL.into_iter().map(|kind| (kind.name(), kind as u32));
        let mut happenings = bits(&arguments.only, kinds);
        if !arguments.reason.is_empty() {
            happenings &= refusals;
        }
        if happenings == 0 {
            bail!("only refusals have a reason: --reason and another --only leave nothing");
        }
        let of = match &arguments.service {
            None => Of::All,
            Some(Destination::Address { address, protocol }) => at(guide, *address, *protocol as u8),
            Some(Destination::Service(name)) => service(guide, name.clone())?,
        };
        let mut marks = None;
        if let Some(name) = &arguments.client {
            let client = Client::of(name, guide.report.as_ref())?;
            let its = client.marks(&Pods::of(guide.report.as_ref()), &guide.tables);
            if its.is_empty() {
                bail!("this client has nothing to know it by: name it as outside:ADDRESS, or by its Pod");
            }
            if client.is_without_sockets(&its) {
                say(
                    "the network namespace of this client is not known (no process of it is visible here, or the kernel is older than \
                     5.14): what its sockets get is not shown, only what becomes of its packets",
                );
            }
            marks = Some(its);
        }
        let wishes = Listener {
            sample: arguments.sample,
            happenings,
            reasons: bits(&arguments.reason, reasons()),
            ..Listener::EVERYTHING
        };
        if let Of::Frontend { key, index: RefusedPair::NO_SERVICE } = &of {
            say(&format!("no Service has {key}: of this address only refusals can be told"));
        }
        let mut wanted = Self { listener: wishes, of, client: arguments.client.clone(), marks };
        wanted.tell_kernel();
        Ok(wanted)
    }

    /// Puts Services and clients into the wishes, as far as there is room for them.
    fn tell_kernel(&mut self) {
        self.listener.services = self.of.bits();
        let marks: Vec<Address> = self.marks.iter().flatten().copied().collect();
        let room = self.listener.clients.len();
        self.listener.anybody = u32::from(self.marks.is_none() || marks.len() > room);
        self.listener.clients = [Address::ANY_V6; 3];
        for (to, mark) in self.listener.clients.iter_mut().zip(marks) {
            *to = mark;
        }
    }

    /// Looks once more which Services and clients these are: a Service that is made again has another index, a Pod another
    /// network namespace. Returns whether the wishes are others.
    pub(super) fn follow(&mut self, guide: &Guide) -> bool {
        match &self.of {
            Of::All => {}
            // While it is gone, nothing is heard of it.
            Of::Service { name, .. } => {
                let name = name.clone();
                self.of = service(guide, name.clone()).unwrap_or_else(|_| Of::Service {
                    name,
                    indexes: HashSet::new(),
                    frontends: HashSet::new(),
                    addresses: HashSet::new(),
                });
            }
            Of::Frontend { key, .. } => {
                self.of = at(guide, SocketAddr::new(key.address.into(), key.port.get()), key.protocol);
            }
        }
        if let Some(client) = &self.client
            && let Ok(now) = marks(guide, client)
            && !now.is_empty()
        {
            self.marks = Some(now);
        }
        let before = self.listener;
        self.tell_kernel();
        before != self.listener
    }

    /// Whether this event is wanted, as far as the kernel programs do not know it.
    pub(super) fn has(&self, event: &Event, guide: &Guide) -> bool {
        let Event { frontend, frontend_port, protocol, service, client, .. } = *event;
        self.is_of_client(&client)
            && self.is_of_service(service, &FrontendKey::new(frontend, frontend_port, protocol), guide)
    }

    /// Whether this recorded refusal is.
    pub(super) fn has_recorded(&self, pair: &RefusedPair, guide: &Guide) -> bool {
        let RefusedPair { what, client, frontend, service: _ } = pair;
        let Listener { happenings, reasons, .. } = self.listener;
        let is_asked = happenings >> Happening::Refused as u32 & 1 != 0 && reasons >> (what & 31) & 1 != 0;
        // The index of then may be another Service's now.
        is_asked && self.is_of_client(client) && self.is_of_service(RefusedPair::NO_SERVICE, frontend, guide)
    }

    fn is_of_client(&self, client: &Address) -> bool {
        self.marks.as_ref().is_none_or(|marks| marks.contains(client))
    }

    /// `index` is of the Service, or of none.
    fn is_of_service(&self, index: u32, frontend: &FrontendKey, guide: &Guide) -> bool {
        match &self.of {
            Of::All => true,
            Of::Service { indexes, frontends, addresses, .. } => {
                let node_port = FrontendKey::node_port(&frontend.address, frontend.port, frontend.protocol);
                indexes.contains(&index)
                    || frontends.contains(frontend)
                    || (frontends.contains(&node_port)
                        && inventory::is_nodes(&guide.tables, &frontend.address))
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
    Of::Frontend { key, index: inventory::service_at(&guide.tables, &key).unwrap_or(RefusedPair::NO_SERVICE) }
}

fn marks(guide: &Guide, name: &ClientName) -> anyhow::Result<BTreeSet<Address>> {
    let report = guide.report.as_ref();
    Ok(Client::of(name, report)?.marks(&Pods::of(report), &guide.tables))
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
