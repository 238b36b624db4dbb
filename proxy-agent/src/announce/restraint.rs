//! Limits Events: the same one once an hour, and after a burst one every ten seconds.
//!
//! A thousand nodes see the same bad Service, and each of them writes to the API server.

use std::{collections::HashMap, hash::Hash, time::Duration};

use tokio::time::Instant;

/// How long the API server keeps an event by default; until then the same one need not be written again.
const SAME: Duration = Duration::from_hours(1);
/// The largest burst.
const BURST: u32 = 25;
/// The time until one more is allowed.
const REFILL: Duration = Duration::from_secs(10);
/// How many announcements are remembered.
const MEMORY: usize = 4096;

/// The announcements made, and when.
#[derive(Debug)]
pub(super) struct Restraint<T> {
    told: HashMap<T, Instant>,
    /// When the bucket of allowances was full, or would be.
    full: Instant,
}

impl<T: Clone + Eq + Hash> Restraint<T> {
    /// Nothing has been announced yet.
    pub(super) fn new(now: Instant) -> Self {
        Self { told: HashMap::new(), full: now }
    }

    /// Whether this is news: not yet announced within the hour.
    pub(super) fn is_news(&mut self, what: &T, now: Instant) -> bool {
        let fresh = |told: Instant| now.duration_since(told) < SAME;
        if self.told.get(what).copied().is_some_and(fresh) {
            return false;
        }
        if self.told.len() >= MEMORY {
            self.told.retain(|_, told| fresh(*told));
        }
        if self.told.len() >= MEMORY {
            // Announcing an event twice is better than remembering without bound.
            self.told.clear();
        }
        self.told.insert(what.clone(), now);
        true
    }

    /// How long to wait before the next one, which counts as announced then.
    pub(super) fn wait(&mut self, now: Instant) -> Duration {
        self.full = self.full.max(now) + REFILL;
        self.full.duration_since(now).saturating_sub(REFILL * BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_event_is_announced_once_an_hour() {
        let start = Instant::now();
        let mut restraint = Restraint::new(start);
        let minutes = |minutes| start + Duration::from_mins(minutes);
        assert!(restraint.is_news(&"a", minutes(0)));
        assert!(restraint.is_news(&"b", minutes(1)));
        assert!(!restraint.is_news(&"a", minutes(59)));
        assert!(restraint.is_news(&"a", minutes(60)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_becomes_a_trickle() {
        let start = Instant::now();
        let mut restraint = Restraint::<()>::new(start);
        let waits: Vec<u64> = (0..28).map(|_| restraint.wait(start).as_secs()).collect();
        assert_eq!(waits[..25], [0; 25]);
        assert_eq!(waits[25..], [10, 20, 30]);
        assert_eq!(restraint.wait(start + Duration::from_hours(1)), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn the_memory_has_a_bound() {
        let start = Instant::now();
        let mut restraint = Restraint::new(start);
        for number in 0..3 * MEMORY {
            assert!(restraint.is_news(&number, start));
            assert!(restraint.told.len() <= MEMORY);
        }
    }
}
