//! Follows one kind of objects at an API server for ever: sends the requests that [`Course`] decides on, and passes
//! on the changes that [`Relist`] derives from the answers.

use std::{
    fmt::Debug,
    hash::{BuildHasher as _, RandomState},
    time::Duration,
};

use ::kube::api::WatchEvent;
use futures_util::StreamExt as _;
use serde::de::DeserializeOwned;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};
use tracing::debug;

use super::{
    Batch,
    course::{Course, Next},
    failure::Failure,
    relist::{Relist, Watched},
    request::{Requests, Watching},
    start_gate::StartGate,
    trouble::Trouble,
};

/// How many events are sent as one at most.
const BATCH: usize = 512;
/// How long a watch lasts at least. At the most it is [`SPREAD`] longer, different each time and on each node, so
/// that watches do not all come back at once.
const WATCH: u32 = 150;
/// See [`WATCH`].
const SPREAD: u64 = 50;
/// How long the first request waits at most, in milliseconds: a `DaemonSet` starts on all nodes at once. No longer, for until it is
/// answered nothing is served on a new node; pulling images and starting containers spreads nodes wider.
const START: u64 = 100;
/// A watch that has lasted this long is in order.
const SETTLED: Duration = Duration::from_secs(10);

/// Follows one kind until the receiver is dropped.
pub(super) async fn follow<W>(requests: Requests<W>, gate: &StartGate, events: &mpsc::Sender<Batch>)
where
    W: Watched + DeserializeOwned + Clone + Debug + Send + 'static,
{
    let mut follower = Follower {
        requests,
        gate,
        events,
        course: Course::new(),
        relist: Relist::default(),
        trouble: Trouble::new(W::KIND),
    };
    tokio::select! {
        biased;
        () = events.closed() => {}
        () = follower.run() => {}
    }
}

struct Follower<'a, W> {
    requests: Requests<W>,
    gate: &'a StartGate,
    events: &'a mpsc::Sender<Batch>,
    course: Course,
    relist: Relist,
    trouble: Trouble,
}

impl<W> Follower<'_, W>
where
    W: Watched + DeserializeOwned + Clone + Debug + Send + 'static,
{
    async fn run(&mut self) {
        sleep(Duration::from_millis(random_below(START))).await;
        loop {
            let outcome = match self.course.next().clone() {
                Next::Page { token, limit } => self.page(token.as_deref(), limit).await,
                Next::Watch { version } => self.watch(&version).await,
            };
            let Err(failure) = outcome else { continue };
            let wait = self.course.failed(&failure, random_below);
            debug!(kind = W::KIND.name(), %failure, ?wait, next = ?self.course.next(), "trying again");
            // One watch that breaks is what happens when an API server restarts.
            if self.course.failures() > 1 {
                let said = self.trouble.came(&failure);
                self.send(said.into_iter().collect()).await;
            }
            sleep(wait).await;
        }
    }

    async fn page(&mut self, token: Option<&str>, limit: u32) -> Result<(), Failure> {
        let list = self.requests.page(token, limit).await?;
        let version = list.metadata.resource_version.as_deref();
        let rest = list.metadata.continue_.filter(|token| !token.is_empty());
        let complete = self.course.listed(version, rest, Instant::now())?;
        if token.is_none() {
            self.relist.start();
        }
        let mut batch: Batch =
            list.items.into_iter().filter_map(|object| self.relist.apply(object)).collect();
        if complete {
            batch.extend(self.relist.sweep::<W>());
        }
        self.send(batch).await;
        // Not before it has been passed on: the gate opens for what others can already take.
        if complete {
            self.send(self.gate.listed(W::KIND)).await;
        }
        Ok(())
    }

    async fn watch(&mut self, version: &str) -> Result<(), Failure> {
        let seconds = WATCH + u32::try_from(random_below(SPREAD)).unwrap_or(0);
        let Watching { events, lasts, patience } = self.requests.watch(version, seconds).await?;
        let mut chunks = std::pin::pin!(events.ready_chunks(BATCH));
        let start = Instant::now();
        let mut settled = false;
        loop {
            tokio::select! {
                chunk = chunks.next() => {
                    let Some(chunk) = chunk else {
                        // In time: the next one starts at once.
                        return if start.elapsed() >= lasts { Ok(()) } else { Err(Failure::EndedEarly) };
                    };
                    let mut batch = Batch::new();
                    let outcome = chunk.into_iter().try_for_each(|event| self.hear(event?, &mut batch));
                    self.send(batch).await;
                    outcome?;
                }
                () = sleep_until(start + SETTLED), if !settled => {
                    settled = true;
                    self.course.settled();
                    let said = self.trouble.passed();
                    self.send(said.into_iter().collect()).await;
                }
                () = sleep_until(start + patience) => {
                    debug!(kind = W::KIND.name(), "the API server did not end the watch in time; assuming it is \
                                                   gone");
                    return Ok(());
                }
            }
        }
    }

    fn hear(&mut self, event: WatchEvent<W>, batch: &mut Batch) -> Result<(), Failure> {
        match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                self.course.heard(object.meta().resource_version.as_deref())?;
                batch.extend(self.relist.apply(object));
            }
            WatchEvent::Deleted(object) => {
                self.course.heard(object.meta().resource_version.as_deref())?;
                batch.extend(self.relist.delete::<W>(object.key().name));
            }
            WatchEvent::Bookmark(bookmark) => {
                self.course.heard(Some(&bookmark.metadata.resource_version))?;
            }
            WatchEvent::Error(status) => return Err(Failure::GaveUp(status)),
        }
        Ok(())
    }

    async fn send(&self, batch: Batch) {
        // An error is that nobody listens any more, which ends this all.
        if !batch.is_empty() && self.events.send(batch).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// A number from 0 to `limit` - 1, different on every node.
fn random_below(limit: u64) -> u64 {
    RandomState::new().hash_one(limit) % limit.max(1)
}
