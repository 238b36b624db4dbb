//! How far the tables may grow, and the growth that is under way.

use std::{
    sync::Arc,
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

/// How far the tables may grow, and what is under way.
#[derive(Debug)]
pub(super) struct Growth {
    pub(super) limits: Capacity,
    pub(super) loading: Option<Loading>,
    /// Says when it is loaded.
    loaded: Arc<Notify>,
    /// The last one, if it failed.
    failed: Option<Failed>,
}

/// A growth that failed.
#[derive(Debug)]
struct Failed {
    when: Instant,
    size: Capacity,
    problem: Problem,
}

/// Programs that are being loaded on bigger tables. It takes the verifier a while, and nothing waits for it that fits into
/// the present ones.
#[derive(Debug)]
pub(super) struct Loading {
    pub(super) size: Capacity,
    pub(super) began: Instant,
    pub(super) thread: JoinHandle<Result<Ebpf, dataplane::Error>>,
}

impl Growth {
    pub(super) fn new(limits: Capacity) -> Self {
        Self { limits, loading: None, loaded: Arc::default(), failed: None }
    }

    /// Why the tables are smaller than they should be, if they are.
    pub(super) fn problem(&self) -> Option<&Problem> {
        self.failed.as_ref().map(|failed| &failed.problem)
    }

    /// Notified when the programs of bigger tables are loaded.
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

    /// Notes that a growth failed.
    pub(super) fn note_failure(&mut self, size: Capacity, error: &dataplane::Error) {
        self.failed = Some(Failed { when: Instant::now(), size, problem: problem(error) });
    }

    /// Notes that it did not.
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
