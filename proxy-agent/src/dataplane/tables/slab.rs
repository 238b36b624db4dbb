//! Allocates the slots of ENDPOINTS: contiguous runs, best fit, coalescing.
//!
//! Pure. Allocated runs never overlap, and a freed run merges with its free neighbours, so nothing leaks and
//! fragmentation stays low.
//!
//! By hand, since it begins with the runs that a restarted agent reads back.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

/// The free runs of `0..capacity`.
#[derive(Debug)]
pub(crate) struct Slab {
    capacity: u32,
    /// Slots from here on are taken only when no run below is long enough.
    ceiling: u32,
    free: u32,
    /// Start to length.
    by_start: BTreeMap<u32, u32>,
    /// The same as (length, start).
    by_length: BTreeSet<(u32, u32)>,
}

impl Slab {
    /// Everything free except `used`, which must not overlap each other.
    pub(crate) fn new(capacity: u32, mut used: Vec<Range<u32>>) -> Self {
        used.sort_by_key(|run| run.start);
        let mut slab = Self {
            capacity,
            ceiling: capacity,
            free: 0,
            by_start: BTreeMap::new(),
            by_length: BTreeSet::new(),
        };
        let mut next = 0;
        for run in used {
            slab.put(next, run.start.saturating_sub(next));
            next = next.max(run.end);
        }
        slab.put(next, capacity.saturating_sub(next));
        slab
    }

    /// Takes a run of `length` slots; `None` when no free run is long enough.
    pub(crate) fn take(&mut self, length: u32) -> Option<Range<u32>> {
        if length == 0 {
            return Some(0..0);
        }
        let is_below = |(_, start): &&(u32, u32)| start.saturating_add(length) <= self.ceiling;
        let mut long_enough = self.by_length.range((length, 0)..);
        let first = long_enough.clone().next()?;
        let &(found, start) = long_enough.find(is_below).unwrap_or(first);
        self.remove(start, found);
        self.put(start + length, found - length);
        Some(start..start + length)
    }

    /// Takes a run below the ceiling in place of one beyond it; `None` where that is below, or none is long enough.
    pub(crate) fn take_instead_of(&mut self, run: &Range<u32>) -> Option<Range<u32>> {
        let taken = (run.end > self.ceiling).then(|| self.take(run.end - run.start))??;
        if taken.end > self.ceiling {
            self.give(taken);
            return None;
        }
        Some(taken)
    }

    /// Gives a run back.
    pub(crate) fn give(&mut self, run: Range<u32>) {
        if run.is_empty() {
            return;
        }
        let (mut start, mut length) = (run.start, run.end - run.start);
        if let Some((&before, &before_length)) = self.by_start.range(..start).next_back() {
            debug_assert!(before + before_length <= start, "a run was given back twice: {run:?}");
            if before + before_length == start {
                self.remove(before, before_length);
                start = before;
                length += before_length;
            }
        }
        if let Some((&after, &after_length)) = self.by_start.range(run.end..).next()
            && after == run.end
        {
            self.remove(after, after_length);
            length += after_length;
        }
        self.put(start, length);
    }

    fn put(&mut self, start: u32, length: u32) {
        if length > 0 {
            self.by_start.insert(start, length);
            self.by_length.insert((length, start));
            self.free += length;
        }
    }

    fn remove(&mut self, start: u32, length: u32) {
        self.by_start.remove(&start);
        self.by_length.remove(&(length, start));
        self.free -= length;
    }

    /// There are slots up to `capacity` now, and no ceiling. Those that go must be free ([`Slab::end`]).
    pub(crate) fn resize(&mut self, capacity: u32) {
        debug_assert!(capacity >= self.end(), "slots from {capacity} on are in use");
        if let Some((start, length)) = self.last().filter(|_| capacity < self.capacity) {
            self.remove(start, length);
            self.put(start, capacity - start);
        }
        let before = std::mem::replace(&mut self.capacity, capacity);
        self.give(before..capacity.max(before));
        self.ceiling = capacity;
    }

    /// From now on takes slots from `ceiling` on only when no run below is long enough, so that they become free.
    pub(crate) fn stay_below(&mut self, ceiling: u32) {
        self.ceiling = ceiling;
    }

    /// Takes any slots again.
    pub(crate) fn stay_anywhere(&mut self) {
        self.ceiling = self.capacity;
    }

    /// The lowest slot from which on none is in use.
    pub(crate) fn end(&self) -> u32 {
        self.last().map_or(self.capacity, |(start, _)| start)
    }

    /// The free run at the end: its start and length.
    fn last(&self) -> Option<(u32, u32)> {
        let (&start, &length) = self.by_start.last_key_value()?;
        (start + length == self.capacity).then_some((start, length))
    }

    /// How many slots are free.
    pub(crate) fn free(&self) -> u32 {
        self.free
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn used_runs_are_not_given_out_again() {
        let mut slab = Slab::new(10, vec![4..6, 0..1]);
        assert_eq!(slab.free(), 7);
        assert_eq!(slab.take(4), Some(6..10));
        assert_eq!(slab.take(3), Some(1..4));
        assert_eq!(slab.take(1), None);
    }

    #[test]
    fn what_is_above_the_ceiling_is_taken_last_and_goes_when_it_is_free() {
        let mut slab = Slab::new(100, vec![0..2, 30..31]);
        slab.stay_below(20);
        assert_eq!(slab.take(10), Some(2..12), "not the best fit, but below");
        assert_eq!(slab.take(19), Some(31..50), "nothing below is long enough");
        assert_eq!(slab.take_instead_of(&(31..50)), None);
        assert_eq!(slab.take_instead_of(&(40..45)), Some(12..17));
        assert_eq!(slab.take_instead_of(&(12..17)), None, "it is below");
        assert_eq!(slab.end(), 50);
        slab.give(31..50);
        slab.give(30..31);
        slab.give(12..17);
        assert_eq!(slab.end(), 12);
        slab.resize(20);
        assert_eq!((slab.free(), slab.take(9), slab.take(8)), (8, None, Some(12..20)));
        assert_eq!(slab.end(), 20);
        slab.resize(24);
        assert_eq!((slab.free(), slab.take(4)), (4, Some(20..24)));
    }

    proptest! {
        #[test]
        fn runs_never_overlap_and_nothing_leaks(steps in prop::collection::vec((any::<bool>(), 0_u32..40), 1..400)) {
            let capacity = 256;
            let mut slab = Slab::new(capacity, Vec::new());
            let mut held: Vec<Range<u32>> = Vec::new();
            for (take, amount) in steps {
                if take || held.is_empty() {
                    if let Some(run) = slab.take(amount) {
                        prop_assert_eq!(run.end - run.start, amount);
                        prop_assert!(run.end <= capacity);
                        for other in &held {
                            prop_assert!(run.is_empty() || run.end <= other.start || other.end <= run.start);
                        }
                        if !run.is_empty() { held.push(run); }
                    }
                } else {
                    let run = held.swap_remove(amount as usize % held.len());
                    slab.give(run);
                }
                let in_use: u32 = held.iter().map(|run| run.end - run.start).sum();
                prop_assert_eq!(slab.free() + in_use, capacity);
                prop_assert_eq!(slab.by_start.len(), slab.by_length.len());
                prop_assert_eq!(slab.free(), slab.by_start.values().sum::<u32>());
            }
            for run in held.drain(..) { slab.give(run); }
            prop_assert_eq!(slab.take(capacity), Some(0..capacity), "what came back joined up again");
            slab.resize(2 * capacity);
            prop_assert_eq!(slab.take(capacity), Some(capacity..2 * capacity));
        }
    }
}
