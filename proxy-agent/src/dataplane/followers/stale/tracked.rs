//! NAMESPACES: the network namespaces that a search has to visit, by cookie.
//!
//! The connect hook enters a namespace with its first translated UDP socket. Cookies are never reused, so an entry
//! stays valid until its namespace is gone; a search that reached every namespace removes the entries it did not
//! meet. If the map was full, or the kernel has no cookies (before 5.14), the search visits all namespaces and adds
//! those with such sockets.

use std::{collections::HashSet, sync::atomic::Ordering};

use aya::maps::{HashMap, MapData};
use proxy_common::NodeEvent;

use crate::dataplane::Tables;

/// NAMESPACES, and whether it can be relied on.
#[derive(Debug)]
pub(super) struct Tracked {
    map: HashMap<MapData, u64, u64>,
    /// How many namespaces that the program failed to add have been added since.
    repaired: u64,
    /// Whether this kernel has cookies.
    cookies: bool,
}

/// What one search has to visit.
#[derive(Debug)]
pub(super) struct Wanted {
    /// Cookies of namespaces not met yet.
    missing: HashSet<u64>,
    /// Cookies that NAMESPACES holds.
    entered: HashSet<u64>,
    /// Whether other namespaces are to be visited too.
    all: bool,
    /// [`NodeEvent::UntrackedNamespace`] when the search began.
    failures: u64,
}

impl Wanted {
    /// Whether to look into the namespace with this cookie.
    pub(super) fn meet(&mut self, cookie: u64) -> bool {
        self.missing.remove(&cookie) || self.all
    }

    /// Whether there is nothing more to visit.
    pub(super) fn is_done(&self) -> bool {
        self.missing.is_empty() && !self.all
    }
}

impl Tracked {
    pub(super) fn new(map: HashMap<MapData, u64, u64>, cookies: bool) -> Self {
        Self { map, repaired: 0, cookies }
    }

    /// What to visit now.
    pub(super) fn wanted(&self, tables: &Tables) -> Wanted {
        let failures = tables.totals.word(NodeEvent::UntrackedNamespace as u32, 0).load(Ordering::Acquire);
        let mut all = !self.cookies || failures != self.repaired;
        let mut entered = HashSet::new();
        for cookie in self.map.keys() {
            match cookie {
                Ok(cookie) => {
                    entered.insert(cookie);
                }
                Err(_) => all = true,
            }
        }
        Wanted { missing: entered.clone(), entered, all, failures }
    }

    /// A search found translated sockets in the namespace with this cookie.
    pub(super) fn enter(&mut self, wanted: &mut Wanted, cookie: u64) {
        if self.cookies && wanted.entered.insert(cookie) && self.map.insert(cookie, 0, 0).is_err() {
            // Still no room: the next search visits all again.
            wanted.failures = self.repaired;
        }
    }

    /// A search is over in which nothing failed and every namespace was met.
    pub(super) fn finish(&mut self, wanted: &Wanted) {
        if !self.cookies {
            return;
        }
        for cookie in &wanted.missing {
            // Gone with its namespace; nobody enters it again.
            let _ = self.map.remove(cookie);
        }
        self.repaired = wanted.failures;
    }
}
