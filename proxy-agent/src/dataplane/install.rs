//! [`Dataplane`]: applies [`Changes`].
//!
//! The order of writes, and why no reader sees half of anything:
//!
//! 1. **Endpoints** of a Service go into free slots, and each id's state word is turned to its new slot:
//!    nothing but ids leads there yet, and an id's old slot stays as it is.
//! 2. **One store** of a span word publishes the set: a reader has the old span or the new one.
//! 3. Ids that are no more lose their bits: affinity and UDP stickiness stop following them.
//! 4. **Frontends** are inserted when the record that they lead to is whole; a frontend that moves from one
//!    Service to another is overwritten, so that there is no moment without it. Then ADDRESSES, so that a
//!    ClusterIP refuses unknown ports only when its known ones are there.
//! 5. Frontends that are no more are deleted, then addresses.
//! 6. Slots, ids and indexes are **retired**: used again only after a grace period (`grace`).
//! 7. Connected UDP sockets of endpoints that are gone are looked for (`stale`).
//!
//! What remembers an index or id beyond that (sockets, affinity) remembers its generation.

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
    sync::atomic::Ordering,
};

use proxy_common::{
    Address, AddressBits, AddressEntry, Endpoint, EndpointState, Frontend, FrontendKey, FrontendKind, Port,
    Protocol, Service, Span, service::EndpointSet,
};

use super::{
    Error, Options,
    adopt::{Adopted, adopt},
    grace::{Grace, Retired},
    ids::Ids,
    names,
    slab::Slab,
    stale::Stale,
    tables::Tables,
};
use crate::plan::{Changes, Problem, ServicePlan, ServicePortId, Target};

/// Where an installed Service port is. Its endpoints are read from its slots, not kept twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// Index into SERVICES.
    pub index: u32,
    /// Its slots in ENDPOINTS.
    pub block: Range<u32>,
    /// Its entries in FRONTENDS, sorted.
    pub frontends: Box<[(FrontendKey, FrontendKind)]>,
}

/// The kernel's tables and what is free in them. There is one writer: the agent holds a lock.
#[derive(Debug)]
pub struct Dataplane {
    tables: Tables,
    grace: Grace,
    slots: Slab,
    ids: Ids,
    indexes: Ids,
    installed: HashMap<ServicePortId, Installed>,
    addresses: HashMap<Address, AddressBits>,
    orphans: Vec<FrontendKey>,
    stale: Stale,
}

/// Slots and ids for a set of endpoints, taken before anything is written.
struct Room {
    block: Range<u32>,
    /// For each backend its id and generation.
    ids: Vec<(u32, u16)>,
}

impl Dataplane {
    /// Opens the tables that [`super::load`] made or found, and takes over what they hold.
    pub fn open(options: &Options) -> Result<Self, Error> {
        let tables = Tables::open(&options.pin_dir)?;
        let mut grace = Grace::new(Tables::grace(&options.pin_dir)?)?;
        let Adopted { installed, orphans, addresses, indexes, ids } = adopt(&tables)?;
        // What nothing leads to may still be read by a program that began before the last agent ended.
        grace.pass();
        let blocks = installed.values().map(|found| found.block.clone()).collect();
        Ok(Self {
            slots: Slab::new(tables.endpoints.len(), blocks),
            ids: Ids::new(tables.states.len(), ids),
            indexes: Ids::new(tables.services.len(), indexes),
            tables,
            grace,
            installed,
            addresses,
            orphans,
            stale: Stale::start(&options.pin_dir)?,
        })
    }

    /// The tables, to look at.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// What is installed.
    pub fn installed(&self) -> &HashMap<ServicePortId, Installed> {
        &self.installed
    }

    /// Makes the kernel follow `changes`. What could not be installed comes back by name; the rest is done.
    pub fn apply(&mut self, changes: &Changes) -> Vec<Problem> {
        let freed = self.grace.freed();
        self.reuse(freed);
        let mut problems = Vec::new();
        let mut retired = Retired::default();
        let mut gone: Vec<(FrontendKey, u32)> = Vec::new();

        for plan in &changes.install {
            match self.publish(plan, &mut retired) {
                Ok(index) => {
                    let found = self.frontends(plan, index, &mut problems);
                    gone.extend(found.into_iter().map(|key| (key, index)));
                }
                Err(table) => problems.push(full(&plan.id, table)),
            }
        }
        for (address, bits) in &changes.addresses {
            if !bits.is_none() {
                self.set_address(*address, *bits, &mut problems);
            }
        }
        let stale = if changes.complete { self.not_in(changes) } else { Vec::new() };
        for id in changes.remove.iter().chain(&stale) {
            if let Some(found) = self.installed.remove(id) {
                gone.extend(found.frontends.iter().map(|(key, _)| (*key, found.index)));
                self.withdraw(id.protocol, &found, &mut retired);
            }
        }
        for (key, index) in gone {
            self.delete_frontend(&key, Some(index));
        }
        for (address, bits) in &changes.addresses {
            if bits.is_none() {
                self.remove_address(*address);
            }
        }
        if changes.complete {
            for key in std::mem::take(&mut self.orphans) {
                self.delete_frontend(&key, None);
            }
            let planned: HashSet<Address> = changes.addresses.iter().map(|(address, _)| *address).collect();
            let strays: Vec<Address> =
                self.addresses.keys().filter(|address| !planned.contains(address)).copied().collect();
            for address in strays {
                self.remove_address(address);
            }
        }
        for index in &retired.services {
            // The name goes last: until here a restarted agent would have found the Service by it.
            let _ = self.tables.names.remove(index);
        }
        self.grace.retire(retired);
        self.stale.look(changes.complete);
        problems
    }

    /// Steps 1 to 3 for one Service port. `Err` names the table that has no room.
    fn publish(&mut self, plan: &ServicePlan, retired: &mut Retired) -> Result<u32, &'static str> {
        let known = self.installed.get(&plan.id).cloned();
        let old = known.as_ref().map_or(0..0, |found| found.block.clone());
        let mut former: HashMap<(Address, Port), (u32, u16)> = HashMap::with_capacity(old.len());
        let mut same = old.len() == plan.backends.len();
        for (place, slot) in old.clone().enumerate() {
            if let Some(endpoint) = self.tables.endpoints.load(slot) {
                former.insert((endpoint.address, endpoint.port), (endpoint.id, endpoint.generation));
                same = same
                    && plan.backends.get(place).is_some_and(|backend| {
                        (backend.address, backend.port) == (endpoint.address, endpoint.port)
                    });
            }
        }
        let index = match &known {
            Some(found) => found.index,
            None => self.with_room("SERVICES", |this| this.indexes.take())?,
        };
        let room =
            match self.with_room("ENDPOINTS", |this| this.room(plan, same.then(|| old.clone()), &former)) {
                Ok(room) => room,
                Err(table) => {
                    if known.is_none() {
                        self.indexes.give(index);
                    }
                    return Err(table);
                }
            };

        for ((backend, slot), (id, generation)) in plan.backends.iter().zip(room.block.clone()).zip(&room.ids)
        {
            if !same {
                let (address, port) = (backend.address, backend.port);
                self.tables.endpoints.store(
                    slot,
                    &Endpoint { address, id: *id, service: index, port, generation: *generation, padding: 0 },
                );
            }
            let place = slot - room.block.start;
            let bits = state_bits(plan, place, backend.serving);
            self.tables.states.store(*id, &EndpointState { slot, generation: *generation, bits });
            former.remove(&(backend.address, backend.port));
        }
        self.publish_record(plan, index, known.is_none(), room.block.start);
        for ((address, port), (id, generation)) in former {
            self.stale.gone(plan.id.protocol, address, port);
            self.tables.states.store(id, &EndpointState { slot: 0, generation, bits: 0 });
            retired.ids.push(id);
        }
        if !same && !old.is_empty() {
            retired.slots.push(old);
        }
        let entry = self.installed.entry(plan.id.clone()).or_insert(Installed {
            index,
            block: 0..0,
            frontends: Box::default(),
        });
        entry.block = room.block;
        Ok(index)
    }

    /// Takes what `plan` needs; `None`, with nothing taken, when something is used up.
    fn room(
        &mut self,
        plan: &ServicePlan,
        in_place: Option<Range<u32>>,
        former: &HashMap<(Address, Port), (u32, u16)>,
    ) -> Option<Room> {
        let reused = in_place.is_some();
        let block = match in_place {
            Some(block) => block,
            None => self.slots.take(u32::try_from(plan.backends.len()).ok()?)?,
        };
        let mut ids = Vec::with_capacity(plan.backends.len());
        let mut taken = Vec::new();
        for backend in &plan.backends {
            if let Some(known) = former.get(&(backend.address, backend.port)) {
                ids.push(*known);
            } else if let Some(id) = self.ids.take() {
                let generation =
                    self.tables.states.load(id).map_or(0, |state| state.generation).wrapping_add(1);
                taken.push(id);
                ids.push((id, generation));
            } else {
                for id in taken {
                    self.ids.give(id);
                }
                if !reused {
                    self.slots.give(block);
                }
                return None;
            }
        }
        Some(Room { block, ids })
    }

    /// Takes something, after a grace period if that is what it takes.
    fn with_room<T>(
        &mut self,
        table: &'static str,
        take: impl Fn(&mut Self) -> Option<T>,
    ) -> Result<T, &'static str> {
        if let Some(taken) = take(self) {
            return Ok(taken);
        }
        let freed = self.grace.wait();
        self.reuse(freed);
        take(self).ok_or(table)
    }

    /// Step 2.
    fn publish_record(&mut self, plan: &ServicePlan, index: u32, fresh: bool, base: u32) {
        let span = |target: &Target| match target {
            Target::Backends(range) => Span { base: base + range.start, count: range.end - range.start },
            Target::Refuse(reason) => Span::refuse(*reason),
        };
        let services = &self.tables.services;
        let before = services.load(index);
        let generation = before.map_or(0, |record| record.generation).wrapping_add(u16::from(fresh));
        let record = Service {
            cluster: span(&plan.cluster),
            inside: span(&plan.inside),
            outside: span(&plan.outside),
            affinity_seconds: plan.affinity_seconds,
            generation,
            padding: 0,
        };
        if fresh {
            services.store(index, &record);
            if let Err(error) = self.tables.names.insert(index, names::to_table(&plan.id), 0) {
                tracing::warn!(service = %plan.id, %error, "no name: a restart will install this Service anew");
            }
            return;
        }
        for (word, value) in bytemuck::cast::<Service, [u64; 4]>(record).into_iter().enumerate() {
            let place = services.word(index, word);
            if place.load(Ordering::Relaxed) != value {
                place.store(value, Ordering::Release);
            }
        }
    }

    /// Step 4 for one Service port; gives back the frontends that it does not have any more.
    fn frontends(&mut self, plan: &ServicePlan, index: u32, problems: &mut Vec<Problem>) -> Vec<FrontendKey> {
        let before = self.installed.get(&plan.id).map_or_else(Box::default, |found| found.frontends.clone());
        let mut now = Vec::with_capacity(plan.frontends.len());
        for (key, kind) in &plan.frontends {
            if before.binary_search(&(*key, *kind)).is_err()
                && let Err(error) = self.tables.frontends.insert(key, Frontend::new(key, index, *kind), 0)
            {
                problems.push(Problem {
                    object: format!("Service {}/{}", plan.id.namespace, plan.id.name),
                    field: key.to_string(),
                    message: format!(
                        "{kind} could not be installed in FRONTENDS: {error}; raise --max-frontends"
                    ),
                });
                continue;
            }
            now.push((*key, *kind));
        }
        now.sort_unstable();
        let gone = before
            .iter()
            .map(|(key, _)| *key)
            .filter(|key| !now.iter().any(|(kept, _)| kept == key))
            .collect();
        if let Some(found) = self.installed.get_mut(&plan.id) {
            found.frontends = now.into_boxed_slice();
        }
        gone
    }

    /// Step 5: deletes an entry of FRONTENDS, unless another Service has it by now.
    fn delete_frontend(&mut self, key: &FrontendKey, index: Option<u32>) {
        let current = self.tables.frontends.get(key, 0).map(|value| value.service);
        if let Ok(current) = current
            && index.is_none_or(|index| index == current)
        {
            let _ = self.tables.frontends.remove(key);
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
        retired.services.push(found.index);
    }

    fn set_address(&mut self, address: Address, bits: AddressBits, problems: &mut Vec<Problem>) {
        if self.addresses.get(&address) == Some(&bits) {
            return;
        }
        match self.tables.addresses.insert(address, AddressEntry::new(&address, bits), 0) {
            Ok(()) => {
                self.addresses.insert(address, bits);
            }
            Err(error) => problems.push(Problem {
                object: format!("address {address}"),
                field: "ADDRESSES".to_owned(),
                message: format!("could not be installed: {error}; raise --max-frontends"),
            }),
        }
    }

    fn remove_address(&mut self, address: Address) {
        if self.addresses.remove(&address).is_some() {
            let _ = self.tables.addresses.remove(&address);
        }
    }

    fn not_in(&self, changes: &Changes) -> Vec<ServicePortId> {
        let planned: HashSet<&ServicePortId> = changes.install.iter().map(|plan| &plan.id).collect();
        self.installed.keys().filter(|id| !planned.contains(id)).cloned().collect()
    }

    fn reuse(&mut self, freed: Retired) {
        let Retired { slots, ids, services } = freed;
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

/// The bits of the backend at `place` in its plan.
fn state_bits(plan: &ServicePlan, place: u32, serving: bool) -> u16 {
    let targets = [
        (EndpointSet::Cluster, &plan.cluster),
        (EndpointSet::Inside, &plan.inside),
        (EndpointSet::Outside, &plan.outside),
    ];
    let usable = targets.into_iter().filter_map(|(set, target)| match target {
        Target::Backends(range) if range.contains(&place) => Some(EndpointState::usable(set)),
        _ => None,
    });
    usable.fold(if serving { EndpointState::SERVING } else { 0 }, |bits, bit| bits | bit)
}

fn full(id: &ServicePortId, table: &'static str) -> Problem {
    let flag = if table == "SERVICES" { "--max-services" } else { "--max-endpoints" };
    Problem {
        object: format!("Service {}/{}", id.namespace, id.name),
        field: format!("port {:?}", id.port),
        message: format!(
            "not installed: {table} is full; run `sidestep cleanup` and start again with a larger {flag}"
        ),
    }
}
