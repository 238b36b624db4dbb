//! When to sweep the flows again: a sweep costs a pass over the table, and is due only once a flow can have exceeded
//! its timeout. Pure.

use std::time::Duration;

use super::verdict::least;
use crate::timeouts::Timeouts;

/// The least time between sweeps, unless timeouts are shorter.
const PERIOD: Duration = Duration::from_secs(10);
/// Sweeps take at most this fraction (one part in so many) of a processor's time.
const SHARE: u32 = 100;

/// How long to wait for the next sweep.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Schedule {
    /// A new flow cannot exceed its timeout before this has passed.
    least: Duration,
    wait: Duration,
}

impl Schedule {
    /// Before the first sweep, which is due at once: an earlier agent may have left idle flows.
    pub(super) fn new(timeouts: &Timeouts) -> Self {
        let least = least(timeouts).max(Duration::from_secs(1));
        Self { least, wait: PERIOD.min(least) }
    }

    /// After a sweep that took this long and found that no existing flow can time out within `earliest` seconds.
    pub(super) fn swept(self, took: Duration, earliest: Option<u64>) -> Self {
        let earliest = earliest.map_or(self.least, Duration::from_secs).min(self.least);
        Self { wait: earliest.max(PERIOD.min(self.least)).max(took * (SHARE - 1)), ..self }
    }

    pub(super) const fn wait(self) -> Duration {
        self.wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_comes_when_something_can_be_idle_and_takes_a_hundredth_of_the_time() {
        const MS: Duration = Duration::from_millis(1);
        let schedule = Schedule::new(&Timeouts::default());
        let wait = |schedule: Schedule, took, earliest| schedule.swept(took, earliest).wait().as_secs();
        assert_eq!(schedule.wait().as_secs(), 10);
        assert_eq!(wait(schedule, MS, None), 120, "an empty table");
        assert_eq!(wait(schedule, MS, Some(80)), 80);
        assert_eq!(wait(schedule, MS, Some(1)), 10);
        assert_eq!(wait(schedule, MS, Some(86_400)), 120, "a new flow may be of UDP");
        assert_eq!(wait(schedule, 1000 * MS, Some(1)), 99, "a table so large that a sweep takes a second");
        let second = Duration::from_secs(1);
        let quick = Schedule::new(&Timeouts { udp_stream: second, ..Timeouts::default() });
        assert_eq!((quick.wait(), wait(quick, MS, None)), (second, 1), "short timeouts");
    }
}
