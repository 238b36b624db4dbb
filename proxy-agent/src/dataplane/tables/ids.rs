//! Allocates indexes of SERVICES and ids of ENDPOINT_STATE.
//!
//! Pure. First in, first out: an id that was freed is the last to be used again, so that a generation of
//! sixteen bits outlives whatever remembers it.

use std::collections::{HashSet, VecDeque};

/// The free ids of `1..capacity`. Id 0 stands for nothing.
#[derive(Debug)]
pub(crate) struct Ids {
    /// The lowest id that was never used.
    fresh: u32,
    capacity: u32,
    /// Ids from here on are taken only when no other is free.
    ceiling: u32,
    /// Below the ceiling.
    freed: VecDeque<u32>,
    /// Those from the ceiling on.
    aside: VecDeque<u32>,
}

impl Ids {
    /// Everything free except `used`.
    pub(crate) fn new(capacity: u32, used: impl IntoIterator<Item = u32>) -> Self {
        let mut used: Vec<u32> = used.into_iter().collect();
        used.sort_unstable();
        let fresh = used.last().map_or(1, |&last| last + 1);
        let freed = (1..fresh).filter(|id| used.binary_search(id).is_err()).collect();
        Self { fresh, capacity, ceiling: capacity, freed, aside: VecDeque::new() }
    }

    /// There are ids up to `capacity` now, and no ceiling. Those that go must be free ([`Ids::end`]).
    pub(crate) fn resize(&mut self, capacity: u32) {
        debug_assert!(capacity >= self.fresh || self.end() <= capacity, "ids from {capacity} on are in use");
        self.fresh = self.fresh.min(capacity);
        self.capacity = capacity;
        self.stay_below(capacity);
        self.aside.clear();
    }

    /// From now on takes ids from `ceiling` on only when no other is free, so that they become free.
    pub(crate) fn stay_below(&mut self, ceiling: u32) {
        let all = self.freed.drain(..).chain(self.aside.drain(..));
        let (below, aside) = all.partition(|id| *id < ceiling);
        (self.ceiling, self.freed, self.aside) = (ceiling.min(self.capacity), below, aside);
    }

    /// Takes any id again.
    pub(crate) fn stay_anywhere(&mut self) {
        if self.ceiling < self.capacity {
            self.stay_below(self.capacity);
        }
    }

    /// The lowest id from which on none is in use.
    pub(crate) fn end(&self) -> u32 {
        let free: HashSet<u32> = self.freed.iter().chain(&self.aside).copied().collect();
        (1..self.fresh).rev().find(|id| !free.contains(id)).map_or(1, |last| last + 1)
    }

    /// Takes an id: fresh ones first, and then the one that was freed first.
    pub(crate) fn take(&mut self) -> Option<u32> {
        if self.fresh < self.ceiling {
            return self.take_fresh();
        }
        self.freed.pop_front().or_else(|| self.take_fresh()).or_else(|| self.aside.pop_front())
    }

    fn take_fresh(&mut self) -> Option<u32> {
        (self.fresh < self.capacity).then(|| {
            self.fresh += 1;
            self.fresh - 1
        })
    }

    /// Gives an id back.
    pub(crate) fn give(&mut self, id: u32) {
        debug_assert!(id > 0 && id < self.fresh, "id {id} was never taken");
        if id < self.ceiling { self.freed.push_back(id) } else { self.aside.push_back(id) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_once_and_the_oldest_freed_comes_back_first() {
        let mut ids = Ids::new(5, [2]);
        assert_eq!(ids.take(), Some(3));
        assert_eq!(ids.take(), Some(4));
        assert_eq!(ids.take(), Some(1), "below the used one");
        assert_eq!(ids.take(), None);
        ids.give(4);
        ids.give(2);
        assert_eq!((ids.take(), ids.take(), ids.take()), (Some(4), Some(2), None));
        ids.resize(6);
        assert_eq!((ids.take(), ids.take()), (Some(5), None));
    }

    #[test]
    fn what_is_above_the_ceiling_is_taken_last_and_goes_when_it_is_free() {
        let mut ids = Ids::new(8, [1, 5]);
        ids.give(1);
        ids.stay_below(3);
        assert_eq!(
            (ids.take(), ids.take()),
            (Some(2), Some(1)),
            "the first that was freed, though others are fresh"
        );
        assert_eq!(
            (ids.take(), ids.take(), ids.take(), ids.take(), ids.take()),
            (Some(6), Some(7), Some(3), Some(4), None)
        );
        for id in [7, 4, 3, 6, 2] {
            ids.give(id);
        }
        assert_eq!(ids.end(), 6);
        ids.give(5);
        assert_eq!(ids.end(), 2);
        ids.resize(3);
        assert_eq!((ids.take(), ids.take()), (Some(2), None));
        ids.resize(5);
        assert_eq!((ids.take(), ids.take(), ids.take()), (Some(3), Some(4), None), "fresh once more");
    }
}
