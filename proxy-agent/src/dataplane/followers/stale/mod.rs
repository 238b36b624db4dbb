//! Closes the connected UDP sockets of endpoints that are gone (ST-5): sends on such a socket reach no hook,
//! so nothing else would ever tell their owners.
//!
//! Closed is a socket exactly when its record in SOCKETS says that it was translated, it is still connected
//! to what it was translated to, and that endpoint neither serves nor may be chosen any more. So a socket
//! that was connected straight to a pod is never touched, nor is one of an endpoint that merely left a set
//! (ST-10), nor TCP (ST-4): only UDP sockets are looked at.
//!
//! The dataplane says which addresses endpoints went from; after the first complete plan every socket is a
//! suspect. That only narrows the search: the tables are asked about the record of each suspect, so a search
//! is right whatever happened before: an agent that was killed in between, ids that were used again.
//!
//! The kernel tells socket storage of TCP sockets over netlink, but not of UDP sockets (`inet_sk_diag_fill`
//! ends early for them). So a suspect's record is read through a descriptor of the socket itself, which is
//! borrowed from the process that holds it. Who cannot be asked is left alone.
//!
//! | file | concept |
//! |---|---|
//! | `search` | the thread: when to search, which namespaces, what to close |
//! | `holders` | the records of sockets, through the processes that hold them |
//! | `verdict` | whether a record's endpoint is gone |
//! | `tracked` | NAMESPACES: where such sockets can be |

mod holders;
mod search;
mod tracked;
mod verdict;

use std::{
    collections::HashSet,
    path::Path,
    sync::mpsc::{Sender, channel},
    thread::JoinHandle,
};

use proxy_common::{Address, Port, Protocol};

use self::search::Search;
use crate::dataplane::Error;

/// The sockets that may have become stale: those connected to one of these endpoints, or any.
#[derive(Clone, Debug, Default)]
struct Suspects {
    any: bool,
    peers: HashSet<(Address, Port)>,
}

impl Suspects {
    fn include(&self, peer: &(Address, Port)) -> bool {
        self.any || self.peers.contains(peer)
    }

    fn are_none(&self) -> bool {
        !self.any && self.peers.is_empty()
    }

    fn add(&mut self, more: Self) {
        self.any |= more.any;
        self.peers.extend(more.peers);
    }
}

/// The thread that searches, and what it is to search for next.
#[derive(Debug)]
pub(super) struct Stale {
    /// `None` only while dropping: the thread ends when the sender is gone.
    ask: Option<Sender<Suspects>>,
    next: Suspects,
    thread: Option<JoinHandle<()>>,
}

impl Stale {
    pub(super) fn start(pin_dir: &Path) -> Result<Self, Error> {
        let search = Search::new(pin_dir)?;
        let (ask, asked) = channel();
        let thread = std::thread::Builder::new()
            .name("stale".to_owned())
            .spawn(move || search.run(&asked))
            .map_err(Error::system("starting a thread", "stale"))?;
        Ok(Self { ask: Some(ask), next: Suspects::default(), thread: Some(thread) })
    }

    /// Notes that a Service port lost its endpoint at this address and port.
    pub(super) fn gone(&mut self, protocol: Protocol, address: Address, port: Port) {
        if protocol == Protocol::Udp {
            self.next.peers.insert((address, port));
        }
    }

    /// Starts a search for what was noted, or for `any`; never waits. To be called when the tables are as
    /// the plan wants them.
    pub(super) fn look(&mut self, any: bool) {
        let mut suspects = std::mem::take(&mut self.next);
        suspects.any |= any;
        if !suspects.are_none()
            && let Some(ask) = &self.ask
        {
            // The thread ends only with us.
            let _ = ask.send(suspects);
        }
    }
}

impl Drop for Stale {
    fn drop(&mut self) {
        self.ask = None;
        if let Some(thread) = self.thread.take() {
            // It ends within a search; what it did not come to is found by the next agent's first search.
            let _ = thread.join();
        }
    }
}
