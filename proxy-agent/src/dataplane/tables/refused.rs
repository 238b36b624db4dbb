//! What the maps have no room for: a problem while that lasts, and tried again when there may be room.

use std::{collections::BTreeMap, ops::Bound};

use proxy_common::{Address, AddressBits};

use super::not_installed::{FullTable, NotInstalled};
use crate::plan::{ServicePlan, ServicePortId};

/// Everything that is not installed as the plan wants it.
#[derive(Debug, Default)]
pub(crate) struct Refused {
    services: BTreeMap<ServicePortId, (ServicePlan, Vec<NotInstalled>)>,
    addresses: BTreeMap<Address, (AddressBits, NotInstalled)>,
    /// The Service port that was tried last without a reason.
    tried: Option<ServicePortId>,
}

impl Refused {
    /// Notes what came of a Service port's plan; nothing missing means that it is installed.
    pub(crate) fn service(&mut self, plan: &ServicePlan, missing: Vec<NotInstalled>) {
        if missing.is_empty() {
            self.services.remove(&plan.id);
        } else {
            self.services.insert(plan.id.clone(), (plan.clone(), missing));
        }
    }

    /// Whether this Service port is not what its last plan said. What was noted of it cannot be relied on then:
    /// others may have taken over its frontends.
    pub(crate) fn has(&self, id: &ServicePortId) -> bool {
        self.services.contains_key(id)
    }

    /// Notes that a Service port of which something was missing is not there at all now; whether it was such a one.
    pub(crate) fn deprive(&mut self, id: &ServicePortId, full: FullTable) -> bool {
        let Some((_, missing)) = self.services.get_mut(id) else { return false };
        *missing = vec![NotInstalled::ServicePort { id: id.clone(), full }];
        true
    }

    /// Forgets a Service port that is in no plan any more.
    pub(crate) fn forget(&mut self, id: &ServicePortId) {
        self.services.remove(id);
    }

    /// Notes that an address could not be entered.
    pub(crate) fn address(&mut self, address: Address, bits: AddressBits, missing: NotInstalled) {
        self.addresses.insert(address, (bits, missing));
    }

    /// Forgets an address that is entered, or not wanted any more.
    pub(crate) fn forget_address(&mut self, address: &Address) {
        self.addresses.remove(address);
    }

    /// Forgets all addresses but these.
    pub(crate) fn keep_addresses(&mut self, is_kept: impl Fn(&Address) -> bool) {
        self.addresses.retain(|address, _| is_kept(address));
    }

    /// Forgets everything: a complete plan says it all anew.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// What to try again, in the order of installing.
    pub(crate) fn again(&self) -> (Vec<ServicePlan>, Vec<(Address, AddressBits)>) {
        let mut plans: Vec<ServicePlan> = self.services.values().map(|(plan, _)| plan.clone()).collect();
        plans.sort_by(ServicePlan::order);
        let addresses = self.addresses.iter().map(|(address, (bits, _))| (*address, *bits));
        (plans, addresses.collect())
    }

    /// Some of it to try again, others each time: there may be memory again, and a table says so to nobody.
    pub(crate) fn some_again(&mut self, most: usize) -> (Vec<ServicePlan>, Vec<(Address, AddressBits)>) {
        let after = self.tried.take().map_or(Bound::Unbounded, Bound::Excluded);
        let some: Vec<_> = self.services.range((after, Bound::Unbounded)).take(most).collect();
        if some.len() == most {
            self.tried = some.last().map(|(id, _)| (*id).clone());
        }
        let plans = some.into_iter().map(|(_, (plan, _))| plan.clone()).collect();
        let addresses = self.addresses.iter().take(most).map(|(address, (bits, _))| (*address, *bits));
        (plans, addresses.collect())
    }

    /// All of it.
    pub(crate) fn list(&self) -> Vec<NotInstalled> {
        let services = self.services.values().flat_map(|(_, missing)| missing);
        services.chain(self.addresses.values().map(|(_, missing)| missing)).cloned().collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.services.is_empty() && self.addresses.is_empty()
    }
}
