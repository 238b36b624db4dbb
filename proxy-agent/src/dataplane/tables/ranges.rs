//! SOURCE_RANGES: the clients that may use the LoadBalancer IPs of restricted Services (ST-1).
//!
//! A set of ranges gets a number that its Service does not use yet, is written whole, and becomes the Service's by
//! one store of the word that names it (`publish`). So a program checks a client against the old set or the new one,
//! never against a mixture. The old set is removed after a grace period. Services without ranges pay nothing.

use std::collections::{HashMap, HashSet};

use aya::maps::{LpmTrie, MapData, lpm_trie::Key};
use proxy_common::{Address, SourceRange, SourceRangeKey};

use super::{
    elements::Elements as _,
    not_installed::NotInstalled,
    pinned::Tables,
    retired::{FormerSet, Retired},
};
use crate::{
    dataplane::Error,
    plan::{AllowedClients, ServicePlan},
};

/// SOURCE_RANGES.
type SourceRanges = LpmTrie<MapData, SourceRangeKey, u32>;

/// The set that a Service's record names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Restriction {
    /// Its number; never 0.
    pub(crate) set: u16,
    /// What is in it, sorted. Less than the plan's ranges where there was no room; so it is tried again.
    pub(crate) ranges: Box<[SourceRange]>,
    /// A LoadBalancer IP of the Service's, if it has any.
    pub(crate) vip: Option<Address>,
}

/// The restricted Services, by index.
#[derive(Default, Debug)]
pub(crate) struct Ranges {
    pub(crate) installed: HashMap<u32, Restriction>,
    /// Sets that no record names any more and that are still in the table, by service index and number.
    leaving: HashSet<(u32, u16)>,
    /// The number that was given last, to whichever Service.
    last: u16,
}

/// Every set in the table, by service index and number.
pub(crate) type Sets = HashMap<(u32, u16), Vec<SourceRange>>;

/// Reads the table.
pub(crate) fn sets(tables: &Tables) -> Result<Sets, Error> {
    let mut sets = Sets::new();
    for key in tables.source_ranges.keys() {
        let key = key.map_err(Error::map("SOURCE_RANGES"))?;
        let owner = key.data();
        let set = sets.entry((owner.service, owner.set)).or_default();
        set.extend(SourceRange::from_key(key.prefix_len(), &owner));
    }
    Ok(sets)
}

/// What is left in the table of sets that no record names.
pub(crate) fn former(sets: Sets) -> Vec<FormerSet> {
    sets.into_iter()
        .map(|((service, set), ranges)| FormerSet { service, set, ranges: ranges.into() })
        .collect()
}

impl Ranges {
    /// What the tables hold.
    pub(crate) fn of(installed: HashMap<u32, Restriction>) -> Self {
        Self { installed, ..Self::default() }
    }

    /// A number for another set of the Service at `index`: not its present one, and none that is still in the table,
    /// where the former ranges would be in the new set too.
    fn next(&mut self, index: u32) -> u16 {
        let present = self.installed.get(&index).map(|known| known.set);
        loop {
            self.last = self.last.wrapping_add(1);
            if self.last != 0 && Some(self.last) != present && !self.leaving.contains(&(index, self.last)) {
                return self.last;
            }
        }
    }

    /// Writes the set that `plan` asks for, unless the Service has it, and gives the number for its record; 0 for
    /// everyone. What does not fit lets nobody in, and is told.
    pub(crate) fn write(
        &mut self,
        table: &mut SourceRanges,
        plan: &ServicePlan,
        index: u32,
        retired: &mut Retired,
        missing: &mut Vec<NotInstalled>,
    ) -> u16 {
        let AllowedClients::Only(ranges) = &plan.allowed_clients else {
            self.retire(index, retired);
            return 0;
        };
        let vip = plan.load_balancer_ips().next();
        if let Some(known) = self.installed.get_mut(&index)
            && known.ranges == *ranges
        {
            known.vip = vip;
            return known.set;
        }
        let set = self.next(index);
        let mut entered = Vec::with_capacity(ranges.len());
        for range in ranges {
            let (length, key) = range.key(index, set);
            match table.enter(Key::new(length, key), 1) {
                Ok(()) => entered.push(*range),
                Err(error) => {
                    let (service, error) = (plan.id.service.clone(), error.to_string());
                    missing.push(NotInstalled::SourceRange { service, range: *range, error });
                }
            }
        }
        self.retire(index, retired);
        self.installed.insert(index, Restriction { set, ranges: entered.into(), vip });
        set
    }

    /// The Service at this index is unrestricted from now on, or gone.
    pub(crate) fn retire(&mut self, index: u32, retired: &mut Retired) {
        if let Some(Restriction { set, ranges, .. }) = self.installed.remove(&index) {
            self.leaving.insert((index, set));
            retired.sets.push(FormerSet { service: index, set, ranges });
        }
    }

    /// Takes out a set that no program can be reading.
    pub(crate) fn delete(&mut self, table: &mut SourceRanges, former: &FormerSet) {
        for range in &former.ranges {
            let (length, key) = range.key(former.service, former.set);
            table.withdraw(&Key::new(length, key));
        }
        self.leaving.remove(&(former.service, former.set));
    }

    /// Whether `plan` lets other clients use the LoadBalancer IPs of the Service at this index than those that may now.
    pub(crate) fn change(&self, plan: &ServicePlan, index: u32) -> bool {
        match (self.installed.get(&index), &plan.allowed_clients) {
            (None, AllowedClients::Everyone) => false,
            (Some(before), AllowedClients::Only(ranges)) => *ranges != before.ranges,
            _ => true,
        }
    }

    /// A restricted LoadBalancer IP of each family, if there is one.
    pub(crate) fn vips(&self) -> [Option<Address>; 2] {
        let vips = || self.installed.values().filter_map(|restriction| restriction.vip);
        [vips().filter(Address::is_v4).min(), vips().filter(|vip| !vip.is_v4()).min()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ST-1. The numbers of an agent that was started anew begin again, so they meet those of the one before it.
    #[test]
    fn a_number_is_not_given_again_while_its_set_is_in_the_table() {
        let restriction = |set| Restriction { set, ranges: Box::default(), vip: None };
        let mut ranges = Ranges::of(HashMap::from([(7, restriction(2))]));
        assert_eq!(ranges.next(7), 1);
        ranges.leaving.insert((7, 2));
        ranges.installed.insert(7, restriction(1));
        assert_eq!(ranges.next(7), 3, "1 is present, and 2 is still in the table");
        ranges.leaving.clear();
        ranges.last = u16::MAX;
        assert_eq!(ranges.next(7), 2, "0 is everyone, and 1 is present");
    }
}
