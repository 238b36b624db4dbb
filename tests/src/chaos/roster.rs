//! Which endpoints may answer for a Service.
//!
//! A change of endpoints is in effect some time after it was published, on each node at a time of its own. So what may
//! answer is whatever was published since the last change that was *seen* to be in effect there when the exchange began.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use super::services::{ENDPOINTS, NAMES, SOME};

/// A Service's endpoints, a bit each.
pub(super) type Endpoints = u8;

/// Everything that was published, and how far each node has followed.
#[derive(Debug)]
pub(super) struct Roster {
    /// The endpoints of the one Service whose endpoints change, in the order in which they were published.
    published: Mutex<Vec<Endpoints>>,
    followed: [AtomicUsize; 2],
}

impl Roster {
    pub(super) fn new() -> Self {
        Self {
            published: Mutex::new(vec![ENDPOINTS[SOME]]),
            followed: [AtomicUsize::new(0), AtomicUsize::new(0)],
        }
    }

    /// Publishes other endpoints; `publish` tells the cluster, after which they may be seen.
    pub(super) fn change(&self, endpoints: Endpoints, publish: impl FnOnce()) {
        let mut published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        published.push(endpoints);
        publish();
    }

    /// The number of the last change that was published.
    pub(super) fn last(&self) -> usize {
        self.published.lock().unwrap_or_else(PoisonError::into_inner).len() - 1
    }

    /// Notes that this change is in effect on a node.
    pub(super) fn follow(&self, node: usize, change: usize) {
        self.followed[node].fetch_max(change, Ordering::SeqCst);
    }

    /// The change that was last seen in effect on a node: to be asked before an exchange begins.
    pub(super) fn followed(&self, node: usize) -> usize {
        self.followed[node].load(Ordering::SeqCst)
    }

    /// The endpoints that may answer for a Service in an exchange that began when this change was in effect.
    pub(super) fn may_answer(&self, service: usize, since: usize) -> Endpoints {
        debug_assert!(service < NAMES.len(), "a Service");
        if service != SOME {
            return ENDPOINTS[service];
        }
        let published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        published[since..].iter().fold(0, |all, endpoints| all | endpoints)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::services::SOME, Roster};

    #[test]
    fn an_endpoint_may_answer_until_its_removal_was_seen() {
        let roster = Roster::new();
        roster.change(0b0001, || ());
        let before = roster.followed(0);
        assert_eq!(roster.may_answer(SOME, before), 0b1111, "nobody has followed");
        roster.follow(0, roster.last());
        assert_eq!(roster.may_answer(SOME, roster.followed(0)), 0b0001);
        assert_eq!(roster.may_answer(SOME, before), 0b1111, "an exchange that began earlier");
        assert_eq!(roster.may_answer(SOME, roster.followed(1)), 0b1111, "another node");
        roster.change(0b0010, || ());
        assert_eq!(roster.may_answer(SOME, roster.followed(0)), 0b0011);
        assert_eq!(roster.may_answer(1, roster.followed(0)), 0b0011, "Services that stay as they are");
    }
}
