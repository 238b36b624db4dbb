//! [`Dataplane`]: applies [`Changes`].
//!
//! The order of writes, and why no reader sees half of anything:
//!
//! 1. **Endpoints** of a Service go into free slots, and each id's state word is turned to its new slot:
//!    nothing but ids leads there yet, and an id's old slot stays as it is.
//!    A changed set of source ranges is written beside the old one (`ranges`).
//! 2. **One store** of a span word publishes the set: a reader has the old span or the new one. One store of the
//!    policy word publishes affinity and the set of source ranges.
//! 3. Ids that are no more lose their bits: affinity and UDP stickiness stop following them.
//! 4. **Frontends** are inserted when the record that they lead to is whole; a frontend that moves from one
//!    Service to another is overwritten, so that there is no moment without it. Then ADDRESSES, so that a
//!    ClusterIP refuses unknown ports only when its known ones are there.
//! 5. Frontends that are no more are deleted, then addresses.
//! 6. Slots, ids, indexes and former sets of ranges are **retired**: used again only after a grace period (`grace`).
//! 7. What there was no room for (`refused`) is tried again if something went.
//! 8. Connected UDP sockets of endpoints that are gone are looked for (`stale`).
//!
//! What remembers an index or id beyond that (sockets, affinity) remembers its generation.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    ops::Range,
};

use proxy_common::{
    Address, AddressBits, AddressEntry, EndpointState, Frontend, FrontendKey, FrontendKind, Protocol,
};

use super::{
    adopt::{Adopted, adopt},
    bitmaps::{AddressFilter, NodePorts, other_family},
    exposed::Exposed,
    grace::{Grace, Retired},
    ids::Ids,
    pinned::Tables,
    publish,
    ranges::Ranges,
    refused::Refused,
    slab::Slab,
};
use crate::dataplane::{
    Error, Options,
    followers::{clients::Clients, flows::Flows, stale::Stale},
};
use crate::plan::{Changes, Problem, ServicePlan, ServicePortId};

/// Where an installed Service port is. Its endpoints are read from its slots, not kept twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// Index into SERVICES.
    pub index: u32,
    /// Its slots in ENDPOINTS.
    pub block: Range<u32>,
    /// Its entries in FRONTENDS, sorted.
    pub frontends: Box<[(FrontendKey, FrontendKind)]>,
    /// Whether the whole plan that came last names it.
    pub planned: bool,
}

/// The kernel's tables and what is free in them. There is one writer: the agent holds a lock.
#[derive(Debug)]
pub struct Dataplane {
    pub(crate) tables: Tables,
    pub(crate) grace: Grace,
    pub(crate) slots: Slab,
    pub(crate) ids: Ids,
    pub(crate) indexes: Ids,
    pub(crate) installed: HashMap<ServicePortId, Installed>,
    /// What ADDRESSES held when it was opened, until the first whole plan is installed.
    found_addresses: Option<HashMap<Address, AddressBits>>,
    /// Addresses that are the node's.
    node_addresses: BTreeSet<Address>,
    /// Frontends that lead to nothing that has a name.
    orphans: HashSet<FrontendKey>,
    /// While the whole plan comes in parts: frontends to delete at its end, and where they led.
    deferred: Option<Vec<(FrontendKey, u32)>>,
    refused: Refused,
    exposed: Exposed,
    pub(crate) ranges: Ranges,
    clients: Clients,
    pub(crate) stale: Stale,
    filter: AddressFilter,
    node_ports: NodePorts,
    _flows: Flows,
}

impl Dataplane {
    /// Opens the tables that [`super::load`] made or found, and takes over what they hold.
    pub fn open(options: &Options) -> Result<Self, Error> {
        let tables = Tables::open(&options.pin_dir)?;
        let mut grace = Grace::new(Tables::grace(&options.pin_dir)?)?;
        let Adopted { installed, orphans, addresses, indexes, ids, restrictions, former_sets } =
            adopt(&tables)?;
        // What nothing leads to may still be read by a program that began before the last agent ended.
        grace.pass();
        let mut exposed = Exposed::default();
        for found in installed.values() {
            exposed.add(&found.frontends);
        }
        let blocks = installed.values().map(|found| found.block.clone()).collect();
        let mut dataplane = Self {
            slots: Slab::new(tables.endpoints.len(), blocks),
            ids: Ids::new(tables.states.len(), ids),
            indexes: Ids::new(tables.services.len(), indexes),
            tables,
            grace,
            installed,
            node_addresses: addresses
                .iter()
                .filter(|(_, bits)| bits.has(AddressBits::NODE))
                .map(|(address, _)| *address)
                .collect(),
            found_addresses: Some(addresses),
            orphans: orphans.into_iter().collect(),
            deferred: None,
            refused: Refused::default(),
            exposed,
            ranges: Ranges::of(restrictions),
            clients: Clients::start(&options.pin_dir)?,
            stale: Stale::start(&options.pin_dir)?,
            filter: Tables::address_filter(&options.pin_dir)?,
            node_ports: Tables::node_ports(&options.pin_dir)?,
            _flows: Flows::start(&options.pin_dir, options.flows.timeouts)?,
        };
        dataplane.adopt_node_ports();
        for former in &former_sets {
            dataplane.delete_set(former);
        }
        Ok(dataplane)
    }

    /// Makes NODE_PORTS what FRONTENDS says: an agent that was killed may have left it before or after that.
    fn adopt_node_ports(&self) {
        let frontends = self.tables.frontends.keys().filter_map(Result::ok);
        let node_ports = frontends.filter(|key| key.any_address != 0 && key.protocol == Protocol::Udp as u8);
        self.node_ports.replace(node_ports.map(|key| key.port));
    }

    /// What is wrong now, apart from what [`Dataplane::apply`] said.
    pub fn problems(&self) -> Vec<Problem> {
        self.clients.problems()
    }

    /// The tables, to look at.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// What is installed.
    pub fn installed(&self) -> &HashMap<ServicePortId, Installed> {
        &self.installed
    }

    /// What of it clients outside can ask for.
    pub fn exposed(&self) -> &Exposed {
        &self.exposed
    }

    /// Makes the kernel follow `changes`. Everything that is not installed now comes back by name, also what
    /// an earlier change asked for; the rest is done.
    pub fn apply(&mut self, changes: &Changes) -> Vec<Problem> {
        let freed = self.grace.freed();
        let mut room = !freed.is_empty();
        self.reuse(freed);
        let mut retired = Retired::default();
        let mut gone: Vec<(FrontendKey, u32)> = Vec::new();
        let whole = changes.more || changes.complete;
        if whole && self.deferred.is_none() {
            self.installed.values_mut().for_each(|found| found.planned = false);
            self.deferred = Some(Vec::new());
            self.refused.clear();
        }

        self.clients.expect(changes, &self.node_addresses);
        for plan in &changes.install {
            if let Some(found) = self.installed.get_mut(&plan.id) {
                found.planned = true;
            }
            self.install(plan, &mut retired, &mut gone);
        }
        for (address, bits) in &changes.addresses {
            if !bits.is_none() {
                self.set_address(*address, *bits);
            }
        }
        let stray = if changes.complete { self.not_planned() } else { Vec::new() };
        for id in changes.remove.iter().chain(&stray) {
            self.refused.forget(id);
            if let Some(found) = self.installed.remove(id) {
                self.exposed.remove(&found.frontends);
                gone.extend(found.frontends.iter().map(|(key, _)| (*key, found.index)));
                self.withdraw(id.protocol, &found, &mut retired);
            }
        }
        room |= !gone.is_empty() || !retired.is_empty() || changes.complete;
        if let Some(deferred) = &mut self.deferred {
            deferred.append(&mut gone);
        }
        if !changes.more {
            let gone = self.deferred.take().unwrap_or(gone);
            self.delete_frontends(gone);
        }
        for (address, bits) in &changes.addresses {
            if bits.is_none() {
                room = true;
                self.remove_address(address);
            }
        }
        if changes.complete {
            for key in std::mem::take(&mut self.orphans) {
                self.delete_frontend(&key, None);
            }
            let planned: HashSet<Address> = changes.addresses.iter().map(|(address, _)| *address).collect();
            let found = self.found_addresses.take().unwrap_or_default();
            for address in found.keys().filter(|address| !planned.contains(address)) {
                self.remove_address(address);
            }
        }
        for index in &retired.services {
            // The name goes last: until here a restarted agent would have found the Service by it.
            let _ = self.tables.names.remove(index);
        }
        self.grace.retire(retired);
        if room && !changes.more && !self.refused.is_empty() {
            self.try_again();
        }
        self.clients.follow(self.ranges.vips(), &self.node_addresses);
        self.stale.look(changes.complete);
        self.refused.problems()
    }

    /// Steps 1 to 4 for one Service port; what it does not have any more is added to `retired` and `gone`.
    fn install(&mut self, plan: &ServicePlan, retired: &mut Retired, gone: &mut Vec<(FrontendKey, u32)>) {
        let mut problems = Vec::new();
        match self.publish(plan, retired, &mut problems) {
            Ok(index) => {
                let found = self.frontends(plan, index, &mut problems);
                gone.extend(found.into_iter().map(|key| (key, index)));
            }
            Err(table) => problems.push(publish::full(&plan.id, table)),
        }
        self.refused.service(plan, problems);
    }

    /// Step 7.
    fn try_again(&mut self) {
        let (plans, addresses) = self.refused.again();
        let (mut retired, mut gone) = (Retired::default(), Vec::new());
        for plan in &plans {
            self.install(plan, &mut retired, &mut gone);
        }
        for (address, bits) in addresses {
            self.set_address(address, bits);
        }
        self.delete_frontends(gone);
        self.grace.retire(retired);
    }

    /// Step 4 for one Service port; gives back the frontends that it does not have any more.
    fn frontends(&mut self, plan: &ServicePlan, index: u32, problems: &mut Vec<Problem>) -> Vec<FrontendKey> {
        let before = self.installed.get(&plan.id).map_or_else(Box::default, |found| found.frontends.clone());
        let known = !self.refused.has(&plan.id);
        let mut now = Vec::with_capacity(plan.frontends.len());
        for (key, kind) in &plan.frontends {
            self.node_ports.set(key, true);
            if !(known && before.binary_search(&(*key, *kind)).is_ok())
                && let Err(error) = self.tables.frontends.insert(key, Frontend::new(key, index, *kind), 0)
            {
                problems.push(Problem {
                    object: format!("Service {}", plan.id.service),
                    field: key.to_string(),
                    message: format!(
                        "{kind} could not be installed in FRONTENDS: {error}; raise --max-frontends"
                    ),
                });
                continue;
            }
            // It leads to this plan's Service from now on.
            self.orphans.remove(key);
            now.push((*key, *kind));
        }
        now.sort_unstable();
        let gone = before
            .iter()
            .map(|(key, _)| *key)
            .filter(|key| !now.iter().any(|(kept, _)| kept == key))
            .collect();
        if let Some(found) = self.installed.get_mut(&plan.id) {
            self.exposed.remove(&before);
            self.exposed.add(&now);
            found.frontends = now.into_boxed_slice();
        }
        gone
    }

    /// Step 5 for frontends and the indexes that they led to.
    fn delete_frontends(&mut self, gone: Vec<(FrontendKey, u32)>) {
        for (key, index) in gone {
            self.delete_frontend(&key, Some(index));
        }
    }

    /// Step 5: deletes an entry of FRONTENDS, unless another Service has it by now.
    pub(crate) fn delete_frontend(&mut self, key: &FrontendKey, index: Option<u32>) {
        let current = self.tables.frontends.get(key, 0).map(|value| value.service);
        if let Ok(current) = current
            && index.is_none_or(|index| index == current)
        {
            let _ = self.tables.frontends.remove(key);
            if self.tables.frontends.get(&other_family(key), 0).is_err() {
                self.node_ports.set(key, false);
            }
        }
    }

    /// Step 6 for a Service port that is no more.
    fn withdraw(&mut self, protocol: Protocol, found: &Installed, retired: &mut Retired) {
        for endpoint in found.block.clone().filter_map(|slot| self.tables.endpoints.load(slot)) {
            let gone = EndpointState { slot: 0, generation: endpoint.generation, bits: 0 };
            self.tables.states.store(endpoint.id, &gone);
            self.stale.gone(protocol, endpoint.address, endpoint.port);
            retired.ids.push(endpoint.id);
        }
        if !found.block.is_empty() {
            retired.slots.push(found.block.clone());
        }
        self.retire_ranges(found.index, retired);
        retired.services.push(found.index);
    }

    fn set_address(&mut self, address: Address, bits: AddressBits) {
        self.refused.forget_address(&address);
        self.filter.add(&address);
        let known = self.found_addresses.as_ref().and_then(|found| found.get(&address));
        if known == Some(&bits) {
            return;
        }
        match self.tables.addresses.insert(address, AddressEntry::new(&address, bits), 0) {
            Ok(()) if bits.has(AddressBits::NODE) => {
                self.node_addresses.insert(address);
            }
            Ok(()) => {
                self.node_addresses.remove(&address);
            }
            Err(error) => {
                let problem = Problem {
                    object: format!("address {address}"),
                    field: "ADDRESSES".to_owned(),
                    message: format!("could not be installed: {error}; raise --max-frontends"),
                };
                self.refused.address(address, bits, problem);
            }
        }
    }

    fn remove_address(&mut self, address: &Address) {
        self.refused.forget_address(address);
        self.node_addresses.remove(address);
        let _ = self.tables.addresses.remove(address);
    }

    /// What is installed and not in the whole plan.
    fn not_planned(&self) -> Vec<ServicePortId> {
        self.installed.iter().filter(|(_, found)| !found.planned).map(|(id, _)| id.clone()).collect()
    }

    pub(crate) fn reuse(&mut self, freed: Retired) {
        let Retired { slots, ids, services, sets } = freed;
        // Before an index is used again.
        for former in &sets {
            self.delete_set(former);
        }
        for run in slots {
            self.slots.give(run);
        }
        for id in ids {
            self.ids.give(id);
        }
        for index in services {
            self.indexes.give(index);
        }
    }
}
