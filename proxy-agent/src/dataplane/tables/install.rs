//! Applies [`Changes`] to the tables.
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
//! 5. Frontends that are no more are deleted, then addresses. Those that a Service port loses were deleted or taken
//!    over before its record changed (`losers`).
//! 6. Slots, ids, indexes and former sets of ranges are **retired**: used again only after a grace period (`grace`).
//! 7. What there was no room for (`refused`) is tried again if something went.
//!
//! Where there is no room for a Service that goes first, another one is taken out in between (`precedence`).
//!
//! What follows the tables, such as the search for sockets of endpoints that are gone, comes after that (`followers`).
//!
//! What remembers an index or id beyond that (sockets, affinity) remembers its generation.

use std::collections::HashSet;

use proxy_common::{Address, AddressBits, EndpointState, FrontendKey, Protocol};

use super::{
    crash, elements::Elements as _, installed::Installed, not_installed::NotInstalled, retired::Retired,
    writer::Writer,
};
use crate::plan::{Changes, ServicePlan};

/// How much is tried again without a reason: a full table answers at once, but there may be very many.
const SOME: usize = 512;

/// What nothing is to lead to any more.
#[derive(Default)]
pub(super) struct Leaving {
    /// Frontends, and the indexes that they led to.
    frontends: Vec<(FrontendKey, u32)>,
    /// What they led to.
    retired: Retired,
}

impl Leaving {
    fn is_empty(&self) -> bool {
        self.frontends.is_empty() && self.retired.is_empty()
    }
}

impl Writer {
    /// Makes the tables follow `changes`. What cannot be installed is noted ([`Writer::not_installed`]), also what an
    /// earlier change asked for; the rest is done.
    pub(crate) fn apply(&mut self, changes: &Changes) {
        if !changes.complete && !changes.more {
            crash::a_change_begins();
        }
        let freed = self.grace.freed();
        let mut room = !freed.is_empty();
        self.reuse(freed);
        self.begin_whole_plan(changes);
        let mut leaving = Leaving::default();
        self.install_all(changes, &mut leaving);
        self.withdraw_all(changes, &mut leaving);
        room |= !leaving.is_empty() || changes.complete;
        let Leaving { frontends, mut retired } = leaving;
        self.delete_frontends(frontends);
        room |= self.remove_addresses(changes);
        if changes.complete {
            self.delete_left_behind(changes);
            self.let_go(&mut retired);
        }
        self.retire(retired);
        if room && !changes.more && !self.refused.is_empty() {
            self.try_all_again();
        }
    }

    /// Tries some of what could not be installed again, without a reason.
    pub(crate) fn try_some_again(&mut self) {
        let freed = self.grace.freed();
        self.reuse(freed);
        let some = self.refused.some_again(SOME);
        self.try_again(some);
    }

    /// The first part of a whole plan says everything anew.
    fn begin_whole_plan(&mut self, changes: &Changes) {
        if (changes.more || changes.complete) && !self.in_parts {
            self.unplanned = self.installed.iter().map(|(id, _)| id).collect();
            self.refused.clear();
        }
        self.in_parts = changes.more;
    }

    /// Steps 1 to 4 for everything that is to be there.
    fn install_all(&mut self, changes: &Changes, leaving: &mut Leaving) {
        for plan in &changes.install {
            self.unplanned.remove(&plan.id);
            self.install_in_turn(plan, leaving);
        }
        if !changes.more {
            self.install_losers(leaving);
        }
        for (address, bits) in changes.addresses.iter().filter(|(_, bits)| !bits.is_none()) {
            self.set_address(*address, *bits);
        }
    }

    /// Steps 1 to 4 for one Service port; what it does not have any more is added to `leaving`. Gives what has no room.
    pub(super) fn try_install(&mut self, plan: &ServicePlan, leaving: &mut Leaving) -> Vec<NotInstalled> {
        let mut missing = Vec::new();
        match self.publish(plan, &mut leaving.retired, &mut missing) {
            Ok(index) => {
                let gone = self.insert_frontends(plan, index, &mut missing);
                leaving.frontends.extend(gone.into_iter().map(|key| (key, index)));
            }
            Err(full) => missing.push(NotInstalled::ServicePort { id: plan.id.clone(), full }),
        }
        missing
    }

    /// Takes Service ports out that are in no plan any more.
    fn withdraw_all(&mut self, changes: &Changes, leaving: &mut Leaving) {
        let stray = if changes.complete { std::mem::take(&mut self.unplanned) } else { HashSet::new() };
        for id in changes.remove.iter().chain(&stray) {
            self.refused.forget(id);
            if let Some(found) = self.installed.remove(id) {
                self.exposed.remove(&found.frontends);
                self.frontends -= found.frontends.len();
                leaving.frontends.extend(found.frontends.iter().map(|(key, _)| (*key, found.index)));
                self.withdraw(id.protocol, &found, &mut leaving.retired);
            }
        }
    }

    /// Step 6 for a Service port that is no more.
    pub(super) fn withdraw(&mut self, protocol: Protocol, found: &Installed, retired: &mut Retired) {
        for endpoint in found.block.clone().filter_map(|slot| self.tables.endpoints.load(slot)) {
            let gone = EndpointState { slot: 0, generation: endpoint.generation, bits: 0 };
            self.tables.states.store(endpoint.id, &gone);
            self.gone.push((protocol, endpoint.address, endpoint.port));
            retired.ids.push(endpoint.id);
        }
        if !found.block.is_empty() {
            retired.slots.push(found.block.clone());
        }
        self.ranges.retire(found.index, retired);
        retired.services.push(found.index);
    }

    /// Step 5 for addresses; whether there were any.
    fn remove_addresses(&mut self, changes: &Changes) -> bool {
        let mut any = false;
        for (address, _) in changes.addresses.iter().filter(|(_, bits)| bits.is_none()) {
            self.remove_address(address);
            any = true;
        }
        any
    }

    /// Deletes what an earlier agent left and the whole plan does not have.
    fn delete_left_behind(&mut self, changes: &Changes) {
        for key in std::mem::take(&mut self.orphans) {
            self.delete_frontend(&key, None);
        }
        self.remove_found_addresses(&changes.addresses);
    }

    /// Retires what an update that was cut off left beside a Service's block, unless its record still leads there.
    fn let_go(&mut self, retired: &mut Retired) {
        let held = std::mem::take(&mut self.held);
        let (kept, gone): (Vec<_>, Vec<_>) = held.into_iter().partition(|(id, _)| self.refused.has(id));
        self.held = kept;
        retired.slots.extend(gone.into_iter().map(|(_, run)| run));
    }

    /// Step 6.
    pub(super) fn retire(&mut self, retired: Retired) {
        for index in &retired.services {
            // The name goes last: until here a restarted agent would have found the Service by it.
            self.tables.names.withdraw(index);
        }
        self.grace.retire(retired);
    }

    /// Step 7.
    pub(super) fn try_all_again(&mut self) {
        let all = self.refused.again();
        self.try_again(all);
    }

    fn try_again(&mut self, (plans, addresses): (Vec<ServicePlan>, Vec<(Address, AddressBits)>)) {
        let mut leaving = Leaving::default();
        for plan in &plans {
            self.install_in_turn(plan, &mut leaving);
        }
        self.install_losers(&mut leaving);
        for (address, bits) in addresses {
            self.set_address(address, bits);
        }
        self.delete_frontends(leaving.frontends);
        self.grace.retire(leaving.retired);
    }
}
