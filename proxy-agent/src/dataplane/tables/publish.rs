//! Steps 1 to 3 of `install`: a Service's endpoints into free slots, its ranges into a new set, the stores that
//! publish them, and the end of the ids that are no more.

use std::{collections::HashMap, ops::Range, sync::atomic::Ordering};

use proxy_common::{Address, Endpoint, EndpointState, Port, Service, Span, service::EndpointSet};

use super::{
    elements::Elements as _,
    installed::Installed,
    names,
    not_installed::{FullTable, NotInstalled},
    retired::Retired,
    writer::Writer,
};
use crate::plan::{ServicePlan, Target};

/// Slots and ids for a set of endpoints, taken before anything is written.
struct Room {
    block: Range<u32>,
    /// For each endpoint its id and generation.
    ids: Vec<(u32, u16)>,
}

impl Writer {
    /// Steps 1 to 3 for one Service port. `Err` names the table that has no room.
    pub(crate) fn publish(
        &mut self,
        plan: &ServicePlan,
        retired: &mut Retired,
        missing: &mut Vec<NotInstalled>,
    ) -> Result<u32, FullTable> {
        let known = self.installed.get(&plan.id);
        let old = known.as_ref().map_or(0..0, |found| found.block.clone());
        let mut former: HashMap<(Address, Port), (u32, u16)> = HashMap::with_capacity(old.len());
        let mut same = old.len() == plan.endpoints.len();
        for (place, slot) in old.clone().enumerate() {
            if let Some(endpoint) = self.tables.endpoints.load(slot) {
                former.insert((endpoint.address, endpoint.port), (endpoint.id, endpoint.generation));
                same = same
                    && plan.endpoints.get(place).is_some_and(|planned| {
                        (planned.address, planned.port, planned.local)
                            == (endpoint.address, endpoint.port, endpoint.is_local())
                    });
            }
        }
        let index = match &known {
            Some(found) => found.index,
            None => self.with_room(FullTable::Services, |this| this.indexes.take())?,
        };
        let room = match self
            .with_room(FullTable::Endpoints, |this| this.room(plan, same.then_some(&old), &former))
        {
            Ok(room) => room,
            Err(table) => {
                if known.is_none() {
                    self.indexes.give(index);
                }
                return Err(table);
            }
        };

        let same = room.block == old;
        for ((planned, slot), (id, generation)) in
            plan.endpoints.iter().zip(room.block.clone()).zip(&room.ids)
        {
            if !same {
                let (address, port) = (planned.address, planned.port);
                let flags = if planned.local { Endpoint::LOCAL } else { 0 };
                self.tables.endpoints.store(
                    slot,
                    &Endpoint { address, id: *id, service: index, port, generation: *generation, flags },
                );
            }
            let place = slot - room.block.start;
            let bits = state_bits(plan, place, planned.serving);
            self.tables.states.store(*id, &EndpointState { slot, generation: *generation, bits });
            former.remove(&(planned.address, planned.port));
        }
        let set = self.ranges.write(&mut self.tables.source_ranges, plan, index, retired, missing);
        self.publish_record(plan, index, known.is_none(), room.block.start, set);
        if known.is_none() || self.refused.has(&plan.id) {
            self.write_name(plan, index, missing);
        }
        for ((address, port), (id, generation)) in former {
            self.gone.push((plan.id.protocol, address, port));
            self.tables.states.store(id, &EndpointState { slot: 0, generation, bits: 0 });
            retired.ids.push(id);
        }
        if !same && !old.is_empty() {
            retired.slots.push(old);
        }
        let frontends = known.map_or_else(Box::default, |found| found.frontends);
        self.installed.set(&plan.id, &Installed { index, block: room.block, frontends });
        Ok(index)
    }

    /// Takes what `plan` needs; `None`, with nothing taken, when something is used up.
    fn room(
        &mut self,
        plan: &ServicePlan,
        in_place: Option<&Range<u32>>,
        former: &HashMap<(Address, Port), (u32, u16)>,
    ) -> Option<Room> {
        let block = match in_place {
            Some(block) => self.slots.take_instead_of(block).unwrap_or_else(|| block.clone()),
            None => self.slots.take(u32::try_from(plan.endpoints.len()).ok()?)?,
        };
        let mut ids = Vec::with_capacity(plan.endpoints.len());
        let mut taken = Vec::new();
        for planned in &plan.endpoints {
            if let Some(known) = former.get(&(planned.address, planned.port)) {
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
                if in_place != Some(&block) {
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
        table: FullTable,
        take: impl Fn(&mut Self) -> Option<T>,
    ) -> Result<T, FullTable> {
        if let Some(taken) = take(self) {
            return Ok(taken);
        }
        let freed = self.grace.wait();
        self.reuse(freed);
        take(self).ok_or(table)
    }

    /// Step 2.
    fn publish_record(&self, plan: &ServicePlan, index: u32, fresh: bool, base: u32, source_set: u16) {
        let span = |target: &Target| match target {
            Target::Endpoints(range) => Span { base: base + range.start, count: range.end - range.start },
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
            source_set,
        };
        if fresh {
            if before.is_some_and(|record| record.generation != 0) {
                self.tables.reset_counters(index);
            }
            services.store(index, &record);
            return;
        }
        for (word, value) in bytemuck::cast::<Service, [u64; 4]>(record).into_iter().enumerate() {
            if services.word(index, word).load(Ordering::Relaxed) != value {
                services.store_word(index, word, value);
            }
        }
    }

    /// Says whose the index is.
    fn write_name(&mut self, plan: &ServicePlan, index: u32, missing: &mut Vec<NotInstalled>) {
        if let Err(error) = self.tables.names.enter(index, names::to_table(&plan.id)) {
            missing.push(NotInstalled::Name { service: plan.id.service.clone(), error: error.to_string() });
        }
    }
}

/// The bits of the endpoint at `place` in its plan.
fn state_bits(plan: &ServicePlan, place: u32, serving: bool) -> u16 {
    let targets = [
        (EndpointSet::Cluster, &plan.cluster),
        (EndpointSet::Inside, &plan.inside),
        (EndpointSet::Outside, &plan.outside),
    ];
    let usable = targets.into_iter().filter_map(|(set, target)| match target {
        Target::Endpoints(range) if range.contains(&place) => Some(EndpointState::usable(set)),
        _ => None,
    });
    usable.fold(if serving { EndpointState::SERVING } else { 0 }, |bits, bit| bits | bit)
}
