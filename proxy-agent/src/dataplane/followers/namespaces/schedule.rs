//! When to search: a pure function of the known state and the time.

use std::time::{Duration, Instant};

/// Searches with a reason take at most this fraction (one part in so many) of the time.
const SHARE: u32 = 10;
/// The longest time between searches, as addresses may change without a notification.
const PERIOD: Duration = Duration::from_secs(5);
/// Searches without a reason take at most this fraction (one part in so many) of the time.
const IDLE_SHARE: u32 = 100;
/// The delays of other searches after one with a reason: a namespace is mounted before it has wires, addresses and rules. Each
/// is twice the one before it, from the first to the last.
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LAST_DELAY: Duration = Duration::from_millis(3_200);

/// The state that decides when to search next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Schedule {
    /// When the last search ended, and how long it took.
    ended: Instant,
    took: Duration,
    /// The count of refusals when it began.
    refusals: u64,
    /// The time of the last reason, and after which delay a search is still due, if one is.
    settling: Option<(Instant, Duration)>,
    news: bool,
}

impl Schedule {
    /// After a search that began at `began` with this count of refused unknown clients.
    pub(super) fn looked(self, began: Instant, ended: Instant, refusals: u64) -> Self {
        Self { ended, took: ended.saturating_duration_since(began), refusals, news: false, ..self }
    }

    /// Before the first search.
    pub(super) const fn new(now: Instant) -> Self {
        Self { ended: now, took: Duration::ZERO, refusals: 0, settling: None, news: false }
    }

    /// How many refusals had been counted when the last look began.
    pub(super) const fn refusals(&self) -> u64 {
        self.refusals
    }

    /// Takes the state at `now`, and returns whether to search.
    pub(super) fn is_due(&mut self, now: Instant, refusals: u64, reason: bool) -> bool {
        if reason {
            self.settling = Some((now, FIRST_DELAY));
        }
        self.news |= reason || refusals != self.refusals;
        if let Some((then, delay)) = self.settling
            && now.saturating_duration_since(then) >= delay
        {
            self.settling = Some((then, delay * 2)).filter(|_| delay < LAST_DELAY);
            self.news = true;
        }
        let since = now.saturating_duration_since(self.ended);
        (self.news && since >= self.took * (SHARE - 1)) || since >= PERIOD.max(self.took * (IDLE_SHARE - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_refusal_a_mount_and_time_are_reasons_to_look() {
        let start = Instant::now();
        let schedule = Schedule::new(start).looked(start, start + 10 * MS, 7);
        let at = |ms: u32| start + 10 * MS + ms * MS;
        let due = |ms, refusals, mounted| schedule.clone().is_due(at(ms), refusals, mounted);
        assert!(!due(4_000, 7, false), "no news");
        assert!(due(5_000, 7, false), "the period is over");
        assert!(due(90, 8, false) && due(90, 7, true), "news");
        assert!(!due(89, 8, false), "looks take a tenth of the time");
    }

    #[test]
    fn looks_follow_until_what_was_mounted_has_settled() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start).looked(start, start, 0);
        assert!(schedule.is_due(start, 0, true));
        let mut looks = Vec::new();
        for ms in (50..=4_900).step_by(50) {
            let now = start + ms * MS;
            if schedule.is_due(now, 0, false) {
                looks.push(ms);
                schedule = schedule.looked(now, now + MS / 10, 0);
            }
        }
        // The first was due and was not taken.
        assert_eq!(looks, [50, 100, 200, 400, 800, 1_600, 3_200]);
    }

    #[test]
    fn a_machine_with_very_many_processes_is_looked_through_less_often() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start).looked(start, start + 200 * MS, 0);
        assert!(!schedule.is_due(start + 10_000 * MS, 0, false));
        assert!(schedule.is_due(start + 20_000 * MS, 0, false));
    }
}
