//! Room for the Services that a node cannot do without ([`goes_first`]): where a table has none left, others make way,
//! whichever came first.
//!
//! A Service port that makes way is taken out whole, is named as everything that does not fit, and is tried again when
//! there is room. Those without endpoints go before the others, then the last in the order of names. What goes first
//! never makes way.

use std::{cmp::Reverse, collections::HashSet, ops::Range};

use proxy_common::{Address, AddressBits, AddressEntry};

use super::{
    install::Leaving,
    not_installed::{FullTable, NotInstalled},
    retired::Retired,
    writer::Writer,
};
use crate::plan::{ServicePlan, ServicePortId, goes_first};

impl Writer {
    /// Steps 1 to 4 for one Service port; for one that goes first, as often as another one can make way.
    pub(super) fn install(&mut self, plan: &ServicePlan, leaving: &mut Leaving) {
        let mut missing = self.try_install(plan, leaving);
        while goes_first(&plan.id.service) && self.make_room(plan, &missing) {
            missing = self.try_install(plan, leaving);
        }
        self.refused.service(plan, missing);
    }

    /// Takes out another Service port where that may help; whether there was one.
    fn make_room(&mut self, plan: &ServicePlan, missing: &[NotInstalled]) -> bool {
        let frontend = |missing: &NotInstalled| matches!(missing, NotInstalled::Frontend { .. });
        let full = missing.iter().find_map(|missing| match missing {
            NotInstalled::ServicePort { full, .. } => Some(*full),
            _ => None,
        });
        let victim = match full {
            Some(FullTable::Services) => self.least(|_| true),
            Some(FullTable::Frontends) => self.least(|found| found.has_frontends),
            Some(FullTable::Endpoints) => self.with_slots_for(plan),
            None if missing.iter().any(frontend) => self.least(|found| found.has_frontends),
            None => None,
        };
        let Some(victim) = victim else { return false };
        self.evict(&victim, full.unwrap_or(FullTable::Frontends));
        true
    }

    /// The Service port that is missed least, among those that are suitable.
    fn least(&self, suitable: impl Fn(&Candidate) -> bool) -> Option<ServicePortId> {
        let least = self.candidates().filter(suitable).min_by(|a, b| a.rank().cmp(&b.rank()))?;
        Some(least.id)
    }

    /// One whose endpoints leave room enough, as little more as possible; else the one with the last slots, so that what
    /// becomes free is in a row. Nothing if it would be in vain.
    fn with_slots_for(&self, plan: &ServicePlan) -> Option<ServicePortId> {
        let wanted = plan.endpoints.len();
        if wanted > self.most_slots() {
            return None;
        }
        let enough = self.candidates().filter(|found| found.slots.len() >= wanted);
        let enough = enough.min_by(|a, b| (a.slots.len(), a.rank()).cmp(&(b.slots.len(), b.rank())));
        let last = || {
            self.candidates().filter(|found| !found.slots.is_empty()).max_by_key(|found| found.slots.start)
        };
        Some(enough.or_else(last)?.id)
    }

    /// How many endpoints could have room if everyone made way who can.
    fn most_slots(&self) -> usize {
        let first = self.installed.iter().filter(|(id, _)| goes_first(&id.service));
        let mut blocks: Vec<Range<u32>> = first.map(|(_, found)| found.block).collect();
        blocks.sort_unstable_by_key(|block| block.start);
        let (length, mut row, mut next, mut taken) = (self.tables.endpoints.len(), 0_u32, 0, 0);
        for block in
            blocks.into_iter().filter(|block| !block.is_empty()).chain(std::iter::once(length..length))
        {
            row = row.max(block.start - next);
            taken += block.len();
            next = block.end;
        }
        // Id 0 stands for nothing.
        (row as usize).min((self.tables.states.len() as usize - 1).saturating_sub(taken))
    }

    fn candidates(&self) -> impl Iterator<Item = Candidate> {
        self.installed.iter().filter(|(id, _)| !goes_first(&id.service)).map(|(id, found)| Candidate {
            planned: !self.unplanned.contains(&id),
            slots: found.block,
            has_frontends: !found.frontends.is_empty(),
            id,
        })
    }

    /// Takes a Service port out, and notes it as one that has no room.
    fn evict(&mut self, id: &ServicePortId, full: FullTable) {
        let Some(found) = self.installed.remove(id) else { return };
        // What the whole plan has not come to yet is noted when it does.
        if !self.unplanned.contains(id) && !self.refused.deprive(id, full) {
            let plan = self.plan_of(id, &found);
            let missing = NotInstalled::ServicePort { id: id.clone(), full };
            if let Some(plan) = plan {
                self.refused.service(&plan, vec![missing]);
            }
        }
        tracing::debug!(service = %id, "makes way for a Service that goes first");
        self.exposed.remove(&found.frontends);
        self.frontends -= found.frontends.len();
        self.delete_frontends(found.frontends.iter().map(|(key, _)| (*key, found.index)).collect());
        let mut retired = Retired::default();
        self.withdraw(id.protocol, &found, &mut retired);
        self.retire(retired);
    }

    /// Enters an address for which ADDRESSES has no room, in the place of one that matters less: what a node's own address
    /// and those of Services that go first lead to is otherwise lost. Gives back the one that made way.
    pub(super) fn enter_instead(
        &mut self,
        address: Address,
        bits: AddressBits,
    ) -> Option<(Address, AddressBits)> {
        let first = self.first_addresses();
        let matters =
            |address: &Address, bits: AddressBits| bits.has(AddressBits::NODE) || first.contains(address);
        if !matters(&address, bits) {
            return None;
        }
        let mut entries = self.tables.addresses.iter().filter_map(Result::ok);
        let (other, entry) = entries.find(|(other, entry)| !matters(other, entry.kind))?;
        self.tables.addresses.remove(&other).ok()?;
        if let Some(found) = &mut self.found_addresses {
            found.remove(&other);
        }
        self.tables.addresses.insert(address, AddressEntry::new(&address, bits), 0).ok()?;
        Some((other, entry.kind))
    }

    /// The addresses of Services that go first.
    fn first_addresses(&self) -> HashSet<Address> {
        let first = self.installed.iter().filter(|(id, _)| goes_first(&id.service));
        let keys = first.flat_map(|(_, found)| found.frontends).map(|(key, _)| key);
        keys.filter(|key| key.any_address == 0).map(|key| key.address).collect()
    }
}

/// A Service port that may make way.
struct Candidate {
    id: ServicePortId,
    planned: bool,
    slots: Range<u32>,
    has_frontends: bool,
}

impl Candidate {
    /// The lowest is missed least: what is in no plan (yet), what has no endpoints, what comes last.
    fn rank(&self) -> (bool, bool, Reverse<&ServicePortId>) {
        (self.planned, !self.slots.is_empty(), Reverse(&self.id))
    }
}
