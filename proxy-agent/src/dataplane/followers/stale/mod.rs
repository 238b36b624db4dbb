//! Moves the connected UDP sockets of endpoints that are gone to living ones (ST-5): sends on such a socket reach no
//! hook, so nothing else would. The agent borrows a descriptor of the socket from its holder and connects it to the
//! Service again; the hook chooses.
//!
//! A socket is moved exactly when a record says that it was translated to its peer, and that endpoint neither serves nor
//! may be chosen any more; or when it is connected to a frontend that had no endpoint, and now has one. So a socket that
//! was connected straight to a pod is never touched, nor is one of an endpoint that merely left a set (ST-10), nor TCP
//! (ST-4): only UDP sockets are.
//!
//! A change only says that there is something to search for; the tables are asked about the record of each socket. So a
//! search is right whatever happened before: an agent that was killed in between, ids that were used again.
//!
//! Iterators in the kernel report every held socket with its record (5.12). Before them the kernel's list of connected
//! sockets names suspects by their peers, and `/proc` their holders. A stale socket that nobody holds is looked for again,
//! told in `status`, and in the end destroyed.
//!
//! | file | concept |
//! |---|---|
//! | `search` | the thread: when to search, which namespaces, what to move |
//! | `holders` | descriptors of sockets, from the processes that hold them |
//! | `reconnect` | connecting a socket again |
//! | `verdict` | whether a record's endpoint is gone |
//! | `tracked` | NAMESPACES: where such sockets can be |
//! | `untranslated` | sockets that were connected to a Service before our programs were attached |

pub(crate) mod holders;
mod reconnect;
mod search;
mod tracked;
mod untranslated;
mod verdict;

use std::{
    collections::HashSet,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Sender, channel},
    },
    thread::JoinHandle,
};

use proxy_common::{Address, Port, Protocol};

use self::search::Search;
pub(crate) use self::untranslated::Untranslated;
use crate::dataplane::{Error, SharedTables};

/// The sockets that may have become stale: those connected to one of these endpoints, or any.
#[derive(Clone, Debug, Default)]
struct Suspects {
    any: bool,
    /// UDP Services came or changed: sockets that wait for an endpoint may get one.
    served: bool,
    peers: HashSet<(Address, Port)>,
}

impl Suspects {
    fn include(&self, peer: &(Address, Port)) -> bool {
        self.any || self.peers.contains(peer)
    }

    fn are_none(&self) -> bool {
        !self.any && !self.served && self.peers.is_empty()
    }

    fn add(&mut self, more: Self) {
        self.any |= more.any;
        self.served |= more.served;
        self.peers.extend(more.peers);
    }
}

/// The thread that searches, and what it is to search for next.
#[derive(Debug)]
pub(super) struct Stale {
    /// `None` only while dropping: the thread ends when the sender is gone.
    ask: Option<Sender<Suspects>>,
    next: Suspects,
    problem: Arc<Mutex<Option<String>>>,
    thread: Option<JoinHandle<()>>,
}

impl Stale {
    pub(super) fn start(pin_dir: &Path, tables: &SharedTables) -> Result<Self, Error> {
        let problem = Arc::default();
        let search = Search::new(pin_dir, tables.clone(), Arc::clone(&problem))?;
        let (ask, asked) = channel();
        let thread = std::thread::Builder::new()
            .name("stale".to_owned())
            .spawn(move || search.run(&asked))
            .map_err(Error::system("starting a thread", "stale"))?;
        Ok(Self { ask: Some(ask), next: Suspects::default(), problem, thread: Some(thread) })
    }

    /// Notes that a Service port lost its endpoint at this address and port.
    pub(super) fn gone(&mut self, protocol: Protocol, address: Address, port: Port) {
        if protocol == Protocol::Udp {
            self.next.peers.insert((address, port));
        }
    }

    /// Starts a search for what was noted, or for `any`, or for sockets that UDP Services can serve now; never waits. To be
    /// called when the tables are as the plan wants them.
    pub(super) fn look(&mut self, any: bool, served: bool) {
        let mut suspects = std::mem::take(&mut self.next);
        suspects.any |= any;
        suspects.served |= served;
        if !suspects.are_none()
            && let Some(ask) = &self.ask
        {
            // The thread ends only with us.
            let _ = ask.send(suspects);
        }
    }
}

impl Stale {
    /// Which stale sockets were not found.
    pub(super) fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
