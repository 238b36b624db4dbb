//! Decides the next request to an API server, so that nothing is missed and nothing requested twice without need.
//!
//! It lists, then watches from the list's version; after a watch ends, the next one continues from the last version
//! seen. It lists again only if it must: the server has forgotten the version, cannot serve it, or sent something
//! impossible. An interrupted list continues with the page that failed.
//!
//! Versions are compared where they are numbers, as Kubernetes 1.35 and later promise them to be (every server before
//! it used numbers too); others are taken as they come. For one kind they order everything that ever happened. So a
//! watch that goes back in time leads to a new list. A *list* that goes back in time comes from a server that lags
//! behind, and is rejected: it would remove newer objects. But if lists stay old for [`LAG`], the server does not
//! lag: its history was restored from a backup, and the list is the truth.
//!
//! Written by hand because kube's watcher accepts every version: a node is better off with its last known state than
//! with an older one.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    backoff::{self, Backoff},
    failure::{Failure, Remedy, Request},
};

/// How many objects a page may have: as client-go asks for.
const PAGE: u32 = 500;
/// How few objects are asked for where larger pages do not arrive in time.
const SMALLEST_PAGE: u32 = 15;
/// How long a server may lag behind what another one said.
const LAG: Duration = Duration::from_mins(2);
/// How often a request is repeated that only this server, now, may be unable to answer.
const FEW_TIMES: u32 = 3;

/// A request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Next {
    /// A page of a list.
    Page {
        /// Where the page before it ended; nothing for the first one.
        token: Option<String>,
        /// How many objects it may have.
        limit: u32,
    },
    /// A watch.
    Watch {
        /// After which version.
        version: String,
    },
}

/// Where a watch of one kind is.
#[derive(Debug)]
pub(super) struct Course {
    next: Next,
    /// The newest version that was heard of.
    newest: Option<u64>,
    /// Since when lists are older than that.
    stale_since: Option<Instant>,
    /// How many objects a page has at present.
    limit: u32,
    /// How often the next request failed, and may do so for ever.
    in_vain: u32,
    /// Whether a list was started over since all was well.
    listed_again: bool,
    backoff: Backoff,
}

impl Course {
    /// Starts with a list.
    pub(super) fn new() -> Self {
        let next = Next::Page { token: None, limit: PAGE };
        let backoff = Backoff::default();
        Self { next, newest: None, stale_since: None, limit: PAGE, in_vain: 0, listed_again: false, backoff }
    }

    /// The next request.
    pub(super) const fn next(&self) -> &Next {
        &self.next
    }

    /// A page came; `token` is where the next one starts. True if the list is complete with it. A page that is not
    /// to be believed is a failure: nothing of it counts.
    pub(super) fn listed(
        &mut self,
        version: Option<&str>,
        token: Option<String>,
        now: Instant,
    ) -> Result<bool, Failure> {
        let Some(version) = version.filter(|version| !version.is_empty()) else {
            return Err(Failure::NoVersion(Request::Page));
        };
        if let (Ok(listed), Some(newest)) = (version.parse(), self.newest)
            && listed < newest
        {
            let since = *self.stale_since.get_or_insert(now);
            if now.duration_since(since) < LAG {
                return Err(Failure::Stale { newest, listed });
            }
            tracing::warn!(
                newest,
                listed,
                "the API server's resourceVersion went back and stays there (a restored etcd?): following the \
                 older state"
            );
            self.newest = Some(listed);
        }
        self.stale_since = None;
        self.in_vain = 0;
        let complete = token.is_none();
        if complete {
            self.limit = PAGE;
            self.newest = version.parse().ok();
            self.next = Next::Watch { version: version.to_owned() };
        } else {
            self.next = Next::Page { token, limit: self.limit };
        }
        Ok(complete)
    }

    /// A watch named a version: an event's, or a bookmark's. An event that is repeated is taken in again, which changes
    /// nothing.
    pub(super) fn heard(&mut self, version: Option<&str>) -> Result<(), Failure> {
        let Some(version) = version.filter(|version| !version.is_empty()) else {
            return Err(Failure::NoVersion(Request::Watch));
        };
        if let (Ok(heard), Some(newest)) = (version.parse(), self.newest)
            && heard < newest
        {
            return Err(Failure::OutOfOrder { newest, heard });
        }
        self.in_vain = 0;
        self.newest = version.parse().ok();
        self.next = Next::Watch { version: version.to_owned() };
        Ok(())
    }

    /// A watch has lasted for a while: all is well.
    pub(super) const fn settled(&mut self) {
        self.listed_again = false;
        self.backoff.reset();
    }

    /// Handles a failure: decides on the next request, and returns the wait before it.
    pub(super) fn failed(&mut self, failure: &Failure, random: impl FnOnce(u64) -> u64) -> Duration {
        if matches!(failure, Failure::Late { request: Request::Page, .. }) {
            self.limit = (self.limit / 2).max(SMALLEST_PAGE);
        }
        let list = match failure.remedy() {
            Remedy::Again => false,
            Remedy::AgainAFewTimes => {
                self.in_vain += 1;
                self.in_vain >= FEW_TIMES
            }
            Remedy::List => true,
        };
        if list {
            self.in_vain = 0;
            self.next = Next::Page { token: None, limit: self.limit };
        } else if let Next::Page { limit, .. } = &mut self.next {
            *limit = self.limit;
        }
        // After a long absence, a version that is forgotten must not cost one more long wait.
        let first_list = list && !self.listed_again;
        self.listed_again |= list;
        let wait = if first_list { self.backoff.short_wait(random) } else { self.backoff.wait(random) };
        wait.max(failure.asked_for().unwrap_or_default().min(backoff::LONGEST))
    }

    /// How often something went wrong since all was well.
    pub(super) const fn failures(&self) -> u32 {
        self.backoff.failures()
    }
}

#[cfg(test)]
#[path = "course_tests.rs"]
mod tests;
