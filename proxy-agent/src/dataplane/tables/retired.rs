//! Slots, ids and indexes taken out of use: nothing leads to them any more, but programs may still be reading them.

use std::ops::Range;

use proxy_common::SourceRange;

/// What may be used again after a grace period.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Retired {
    pub(crate) slots: Vec<Range<u32>>,
    pub(crate) ids: Vec<u32>,
    pub(crate) services: Vec<u32>,
    pub(crate) sets: Vec<FormerSet>,
}

/// A set of source ranges that no record names any more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct FormerSet {
    pub(super) service: u32,
    pub(super) set: u16,
    pub(super) ranges: Box<[SourceRange]>,
}

impl Retired {
    pub(crate) fn is_empty(&self) -> bool {
        let Self { slots, ids, services, sets } = self;
        slots.is_empty() && ids.is_empty() && services.is_empty() && sets.is_empty()
    }

    pub(super) fn append(&mut self, mut other: Self) {
        self.slots.append(&mut other.slots);
        self.ids.append(&mut other.ids);
        self.services.append(&mut other.services);
        self.sets.append(&mut other.sets);
    }
}
