//! How much room the tables have, how much is needed, and making the room beyond a smaller size free.

use proxy_common::{AddressBits, FrontendKind};

use super::{capacity::Capacity, flow_table::Recent, writer::Writer};
use crate::plan::{Changes, ServicePlan};

impl Writer {
    /// What the tables have room for.
    pub(crate) fn capacity(&self) -> Capacity {
        let tables = &self.tables;
        Capacity {
            services: tables.services.len(),
            frontends: tables.frontends_room(),
            endpoints: tables.endpoints.len(),
            clients: tables.affinities_room(),
            flows: tables.flows_room(),
        }
    }

    /// What they must have room for when `changes` are installed, and as many more of the same as `parts` says: exact but
    /// for what goes with them, which needs its room until a grace period is over.
    pub(crate) fn needed(&self, changes: &Changes, parts: u32) -> Capacity {
        let now = self.capacity();
        let (mut services, mut frontends, mut slots, mut longest) = (0, 0, 0, 0);
        let (mut clients, mut flows) = (0, 0);
        for plan in &changes.install {
            let found = self.installed.get(&plan.id);
            let (had, block) =
                found.as_ref().map_or((0, 0), |found| (found.frontends.len(), found.block.len()));
            services += usize::from(found.is_none());
            frontends += plan.frontends.len().saturating_sub(had);
            slots += plan.endpoints.len().saturating_sub(block);
            longest = longest.max(plan.endpoints.len());
            if plan.affinity_seconds > 0 {
                clients = u32::MAX;
            }
            if plan.frontends.iter().any(|(_, kind)| *kind != FrontendKind::ClusterIp) {
                flows = Capacity::FIRST_FLOWS;
            }
        }
        let all = |present: usize, more: usize| {
            u32::try_from(present).unwrap_or(u32::MAX).saturating_add(
                u32::try_from(more).unwrap_or(u32::MAX).saturating_mul(parts.saturating_add(1)),
            )
        };
        let nodes = changes.addresses.iter().filter(|(_, bits)| bits.has(AddressBits::NODE)).count();
        // ADDRESSES has the node's, too. Index and id 0 stand for nothing.
        let addresses = self.node_addresses.len() + nodes;
        let used = (now.endpoints - self.slots.free()) as usize;
        Capacity {
            services: all(self.installed.len() + 1, services),
            frontends: all(self.frontends + addresses, frontends),
            endpoints: all(used + longest + 1, slots),
            clients,
            flows,
        }
    }

    /// What is in use, with room to install the Service with the most endpoints once more; also what waits for a grace period, but
    /// for frontends. Of clients there are any number where a Service has affinity.
    pub(crate) fn used(&self, recent: Recent) -> Capacity {
        let tables = &self.tables;
        let (mut longest, mut has_affinity) = (0, false);
        for (_, found) in self.installed.iter() {
            longest = longest.max(found.block.end - found.block.start);
            let record = tables.services.load(found.index);
            has_affinity |= record.is_some_and(|record| record.affinity_seconds > 0);
        }
        let needed = self.needed(&Changes::default(), 0);
        Capacity {
            endpoints: needed.endpoints.saturating_add(longest),
            clients: if has_affinity { u32::MAX } else { 0 },
            flows: tables.flows.in_use(recent),
            ..needed
        }
    }

    /// Makes what lies beyond a smaller size free as far as that can be done: Services whose slots lie there get others, and
    /// indexes and ids there are given to nobody as long as there are others. Those that are in use go with their
    /// Services and endpoints. Waits for a grace period.
    pub(crate) fn withdraw_to(&mut self, size: &Capacity) {
        self.slots.stay_below(size.endpoints);
        self.ids.stay_below(size.endpoints);
        self.indexes.stay_below(size.services);
        let beyond = self.installed.iter().filter(|(_, found)| found.block.end > size.endpoints);
        let install: Vec<ServicePlan> = beyond.filter_map(|(id, found)| self.plan_of(&id, &found)).collect();
        self.apply(&Changes { install, ..Changes::default() });
        // What was given up lately is in use until a grace period is over.
        let freed = self.grace.pass();
        self.reuse(freed);
    }

    /// Gives any slots, indexes and ids again.
    pub(crate) fn stay_anywhere(&mut self) {
        self.slots.stay_anywhere();
        self.ids.stay_anywhere();
        self.indexes.stay_anywhere();
    }

    /// How long tables must be for what they hold, where it lies.
    pub(crate) fn extent(&self) -> Capacity {
        Capacity {
            services: self.indexes.end(),
            frontends: self.needed(&Changes::default(), 0).frontends,
            endpoints: self.slots.end().max(self.ids.end()),
            clients: 0,
            flows: 0,
        }
    }
}
