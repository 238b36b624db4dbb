//! How long to wait after a failure: longer each time, up to a limit, and never two nodes alike.
//!
//! By hand, since two lengths of wait share one count of failures, and the randomness is an argument.

use std::time::Duration;

/// The longest wait after the first failure.
const FIRST: Duration = Duration::from_secs(1);
/// The longest wait of all. A server that was away for hours is followed again this soon, and one that is
/// struggling hears from each watch of a node every nineteen seconds on average.
pub(super) const LONGEST: Duration = Duration::from_secs(30);

/// Counts failures in a row.
#[derive(Default, Debug)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait after one more failure: a quarter of the step at least, so that a server that comes back is
    /// not met by all nodes at once. `random` draws a number below its argument.
    pub(super) fn wait(&mut self, random: impl FnOnce(u64) -> u64) -> Duration {
        let step = FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        within(step, random)
    }

    /// The wait after a failure that says that there is a server again: as after the first one.
    pub(super) fn short_wait(&mut self, random: impl FnOnce(u64) -> u64) -> Duration {
        self.failures = self.failures.saturating_add(1);
        within(FIRST, random)
    }

    /// How many failures there were in a row.
    pub(super) const fn failures(&self) -> u32 {
        self.failures
    }

    /// It works again.
    pub(super) const fn reset(&mut self) {
        self.failures = 0;
    }
}

fn within(step: Duration, random: impl FnOnce(u64) -> u64) -> Duration {
    let quarter = step / 4;
    let spread = u64::try_from((quarter * 3).as_millis()).unwrap_or(u64::MAX);
    quarter + Duration::from_millis(random(spread))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_half_a_minute_and_start_over_after_success() {
        let mut backoff = Backoff::default();
        let longest: Vec<u128> = (0..8).map(|_| backoff.wait(|below| below).as_millis()).collect();
        assert_eq!(longest, [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
        backoff.reset();
        assert_eq!(backoff.wait(|_| 0), Duration::from_millis(250));
        assert_eq!(backoff.wait(|_| 0), Duration::from_millis(500));
        assert_eq!(backoff.failures(), 2);
    }
}
