//! Sidestep with a listener, which a thread is.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use proxy_agent::dataplane::{Listening, monotonic_nanoseconds};
use proxy_common::{Happening, Listener};
use sidestep_tests::cgroup::Cgroup;

use crate::datapath::Datapath;

/// How often a listener looks, as `sidestep monitor` does.
const PERIOD: Duration = Duration::from_millis(10);

/// What is listened to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ear {
    /// Every event.
    Everything,
    /// One of a thousand, at random.
    Sample,
    /// The refusals, of which there are none.
    Refusals,
}

impl Ear {
    pub(super) const ALL: [Self; 3] = [Self::Everything, Self::Sample, Self::Refusals];

    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Everything => "everything",
            Self::Sample => "one event of a thousand",
            Self::Refusals => "refusals, of which there are none",
        }
    }

    fn wishes(self) -> Listener {
        let all = Listener::EVERYTHING;
        match self {
            Self::Everything => all,
            Self::Sample => Listener { sample: 1_000, ..all },
            Self::Refusals => Listener { happenings: 1 << Happening::Refused as u32, ..all },
        }
    }
}

/// Programs with a listener.
pub(super) struct Listened {
    pub(super) ear: Ear,
    end: Arc<AtomicBool>,
    listener: Option<JoinHandle<Result<(u64, u64)>>>,
    pub(super) datapath: Datapath,
}

impl Listened {
    pub(super) fn new(parent: &Cgroup, ear: Ear, services: u32) -> Result<Self> {
        let datapath = Datapath::new(parent, &format!("ear-{}", ear as u32), services)?;
        let mut listening = Listening::new(datapath.pin_dir(), &ear.wishes(), monotonic_nanoseconds())?;
        let end = Arc::<AtomicBool>::default();
        let ends = Arc::clone(&end);
        let listener = thread::Builder::new().name("listener".to_owned()).spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                while listening.next_event()?.is_some() {}
                ensure!(listening.go_on(monotonic_nanoseconds()), "the listener was too slow");
                thread::sleep(PERIOD);
            }
            Ok(listening.heard())
        })?;
        Ok(Self { ear, end, listener: Some(listener), datapath })
    }

    /// Ends it, and returns how many events there were, and how many of them were dropped.
    pub(super) fn end(&mut self) -> Result<(u64, u64)> {
        self.end.store(true, Ordering::Relaxed);
        let listener = self.listener.take().context("it has ended")?;
        listener.join().map_err(|_| anyhow::anyhow!("the listener panicked"))?
    }
}

impl Drop for Listened {
    fn drop(&mut self) {
        if self.listener.is_some() {
            let _ = self.end();
        }
    }
}
