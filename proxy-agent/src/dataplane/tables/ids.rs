//! Allocates indexes of SERVICES and ids of ENDPOINT_STATE.
//!
//! Pure. First in, first out: an id that was freed is the last to be used again, so that a generation of
//! sixteen bits outlives whatever remembers it.

use std::collections::VecDeque;

/// The free ids of `1..capacity`. Id 0 stands for nothing.
#[derive(Debug)]
pub(crate) struct Ids {
    /// The lowest id that was never used.
    fresh: u32,
    capacity: u32,
    freed: VecDeque<u32>,
}

impl Ids {
    /// Everything free except `used`.
    pub(crate) fn new(capacity: u32, used: impl IntoIterator<Item = u32>) -> Self {
        let mut used: Vec<u32> = used.into_iter().collect();
        used.sort_unstable();
        let fresh = used.last().map_or(1, |&last| last + 1);
        let freed = (1..fresh).filter(|id| used.binary_search(id).is_err()).collect();
        Self { fresh, capacity, freed }
    }

    /// More ids follow, up to `capacity`.
    pub(crate) fn extend(&mut self, capacity: u32) {
        self.capacity = self.capacity.max(capacity);
    }

    /// Takes an id; fresh ones first.
    pub(crate) fn take(&mut self) -> Option<u32> {
        if self.fresh < self.capacity {
            self.fresh += 1;
            return Some(self.fresh - 1);
        }
        self.freed.pop_front()
    }

    /// Gives an id back.
    pub(crate) fn give(&mut self, id: u32) {
        debug_assert!(id > 0 && id < self.fresh, "id {id} was never taken");
        self.freed.push_back(id);
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
        ids.extend(6);
        assert_eq!((ids.take(), ids.take()), (Some(5), None));
    }
}
