//! Kubernetes Events, for people who look at a Service or a Node rather than at an agent's log.
//!
//! | file | concept |
//! |---|---|
//! | `announcement` | which problem becomes which Event (pure) |
//! | `restraint` | how often: the same Event once an hour, and a rate limit for all (pure; time is an argument) |
//! | `publish` | writing Events to the API server |
//!
//! Announcements go through a bounded queue that never blocks: an API server that is slow, gone or refuses costs an
//! announcement, never a change. `sidestep status` and the log have all of them as well.

mod announcement;
mod publish;
mod restraint;

use tokio::sync::mpsc::{Receiver, Sender, channel, error::TrySendError};

pub use self::{announcement::Announcement, publish::publish};

/// How many announcements may wait; further ones are only in the log.
const QUEUE: usize = 256;

/// Accepts announcements. Without a reader of the queue (manifests have no Events) they are dropped.
#[derive(Debug)]
pub struct Announcer(Sender<Announcement>);

impl Announcer {
    /// Creates one, and the queue that [`publish()`] reads.
    pub fn new() -> (Self, Receiver<Announcement>) {
        let (sender, receiver) = channel(QUEUE);
        (Self(sender), receiver)
    }

    /// Queues the announcement, or drops it. Never waits.
    pub fn tell(&self, announcement: impl Into<Option<Announcement>>) {
        let Some(announcement) = announcement.into() else { return };
        if let Err(TrySendError::Full(dropped)) = self.0.try_send(announcement) {
            tracing::debug!(?dropped, "the queue of Events is full; this one is dropped");
        }
    }
}
