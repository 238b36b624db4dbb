//! How far the tables may grow, when they go back, and what of it is under way.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use aya::Ebpf;
use tokio::sync::Notify;

use crate::{
    dataplane::{self, Capacity},
    model::{Problem, Subject},
};

/// How long the agent waits after it could not make bigger tables, which costs the kernel memory and time.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the tables must have been far too big before they go back: Services that went often come again.
const CALM: Duration = Duration::from_mins(10);
/// How often to look whether they are, which may be to look at every Service.
const LOOK: Duration = Duration::from_mins(5);

/// How far the tables may grow, and what is under way.
#[derive(Debug)]
pub(super) struct Growth {
    pub(super) limits: Capacity,
    pub(super) loading: Option<Loading>,
    /// Says when it is loaded.
    loaded: Arc<Notify>,
    /// The last one, if it failed.
    failed: Option<Failed>,
    /// Since when they have been far too big, if they are, and the most that was needed.
    spare: Option<(Instant, Capacity)>,
    /// How long that must last. An agent that finds such tables does not wait: it may have lower limits.
    calm: Duration,
    /// When to look again.
    look: Option<Instant>,
}

/// A growth that failed.
#[derive(Debug)]
struct Failed {
    when: Instant,
    size: Capacity,
    problem: Problem,
}

/// Programs that are being loaded on other tables. It takes the verifier a while, and nothing waits for it that fits into
/// the present ones.
#[derive(Debug)]
pub(super) struct Loading {
    pub(super) purpose: Purpose,
    pub(super) size: Capacity,
    pub(super) began: Instant,
    /// Set when they are loaded.
    pub(super) done: Arc<AtomicBool>,
    pub(super) thread: JoinHandle<Result<Ebpf, dataplane::Error>>,
}

/// Programs that have been loaded.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) purpose: Purpose,
    pub(super) size: Capacity,
    pub(super) began: Instant,
}

/// What becomes of the tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// There is to be more room.
    Grow,
    /// Less will do.
    Shrink,
}

impl Purpose {
    /// What they are then.
    pub(super) const fn outcome(self) -> &'static str {
        match self {
            Self::Grow => "bigger",
            Self::Shrink => "smaller",
        }
    }
}

impl Growth {
    /// With tables that were `found` so long.
    pub(super) fn new(limits: Capacity, found: Capacity) -> Self {
        let loaded = Arc::default();
        let calm = if found.is_bigger(Capacity::START) { Duration::ZERO } else { CALM };
        Self { limits, loading: None, loaded, failed: None, spare: None, calm, look: None }
    }

    /// Why the tables are smaller than they should be, if they are.
    pub(super) fn problem(&self) -> Option<&Problem> {
        self.failed.as_ref().map(|failed| &failed.problem)
    }

    /// Whether programs have been loaded and not been used.
    pub(super) fn is_loaded(&self) -> bool {
        self.loading.as_ref().is_some_and(|loading| loading.done.load(Ordering::Acquire))
    }

    /// Notified when the programs of other tables are loaded.
    pub(super) fn loaded(&self) -> Arc<Notify> {
        Arc::clone(&self.loaded)
    }

    pub(super) fn has_just_failed(&self) -> bool {
        self.failed.as_ref().is_some_and(|failed| failed.when.elapsed() < PATIENCE)
    }

    /// The size to try again, if the last growth failed a while ago.
    pub(super) fn due_again(&self) -> Option<Capacity> {
        let is_due = self.loading.is_none() && !self.has_just_failed();
        self.failed.as_ref().filter(|_| is_due).map(|failed| failed.size)
    }

    /// Whether it is time to look for room to give back.
    pub(super) fn may_shrink(&mut self, now: Instant) -> bool {
        let is_quiet = self.loading.is_none() && self.failed.is_none();
        let is_due = is_quiet && self.look.is_none_or(|due| now >= due);
        if is_due {
            self.look = Some(now + LOOK);
        }
        is_due
    }

    /// The size to try to go back to, if the tables could go back to `spare`, and have been far too big for long enough.
    pub(super) fn due_to_shrink(&mut self, spare: Option<Capacity>, now: Instant) -> Option<Capacity> {
        let known = self.spare;
        self.spare = spare.map(|size| known.map_or((now, size), |(since, most)| (since, size.max(most))));
        let is_due = self.spare.is_none_or(|(since, _)| now - since >= self.calm);
        if !is_due {
            return None;
        }
        // Whatever becomes of it.
        self.calm = CALM;
        self.spare.take().map(|(_, size)| size)
    }

    /// There is to be more room: what was spare is needed.
    pub(super) fn note_growth(&mut self) {
        self.spare = None;
    }

    /// Notes that a growth failed.
    pub(super) fn note_failure(&mut self, size: Capacity, error: &dataplane::Error) {
        self.failed = Some(Failed { when: Instant::now(), size, problem: problem(error) });
    }

    /// Notes that it did not, or that nobody needs it any more.
    pub(super) fn note_success(&mut self) {
        self.failed = None;
    }
}

fn problem(error: &dataplane::Error) -> Problem {
    Problem {
        subject: Subject::ThisNode,
        field: "tables".to_owned(),
        message: format!(
            "cannot be made bigger: {error}; what does not fit is not served. The agent tries again every {} seconds; a \
             memory limit of its container counts the tables, too",
            PATIENCE.as_secs()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Capacity = Capacity::START;

    fn big() -> Capacity {
        SMALL.next(Capacity::default()).expect("bigger")
    }

    #[test]
    fn room_goes_back_at_the_start_and_after_ten_minutes_in_a_row() {
        let began = Instant::now();
        let mut growth = Growth::new(Capacity::default(), big());
        let mut due = |minute: u64, spare| growth.due_to_shrink(spare, began + Duration::from_mins(minute));
        assert_eq!(due(0, Some(SMALL)), Some(SMALL), "as it was found");
        assert_eq!((due(1, Some(SMALL)), due(10, Some(SMALL))), (None, None), "not all was free");
        assert_eq!(due(11, Some(SMALL)), Some(SMALL));
        assert_eq!((due(12, Some(SMALL)), due(13, None)), (None, None));
        assert_eq!((due(14, Some(SMALL)), due(15, Some(big())), due(23, Some(SMALL))), (None, None, None));
        assert_eq!(due(24, Some(SMALL)), Some(big()), "the most that was needed");
    }

    #[test]
    fn tables_that_are_new_are_no_reason_to_shrink_at_once() {
        let began = Instant::now();
        let mut growth = Growth::new(Capacity::default(), SMALL);
        assert_eq!(growth.due_to_shrink(Some(SMALL), began), None);
    }

    #[test]
    fn it_looks_every_five_minutes() {
        let (mut growth, began) = (Growth::new(Capacity::default(), SMALL), Instant::now());
        let mut may = |seconds: u64| growth.may_shrink(began + Duration::from_secs(seconds));
        assert_eq!([may(0), may(299), may(300), may(301)], [true, false, true, false]);
    }
}
