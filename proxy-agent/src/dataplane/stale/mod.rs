//! Closes the connected UDP sockets of endpoints that are gone (ST-5): sends on such a socket reach no hook,
//! so nothing else would ever tell their owners.
//!
//! Closed is a socket exactly when its record in SOCKETS says that it was translated, it is still connected
//! to what it was translated to, and that endpoint neither serves nor may be chosen any more. So a socket
//! that was connected straight to a pod is never touched, nor is one of an endpoint that merely left a set
//! (ST-10), nor TCP (ST-4): only UDP sockets are looked at.
//!
//! Nobody hands over which endpoints went. A search asks the tables about each socket that it finds, so it
//! is right whatever happened before: an agent that was killed in between, endpoints that went while none
//! ran, ids that were used again. The dataplane only says when to search: after each change in which a UDP
//! endpoint went, and after the first complete plan.
//!
//! | file | concept |
//! |---|---|
//! | `search` | the thread: when to search, which namespaces, what to close |
//! | `verdict` | whether a record's endpoint is gone |
//! | `tracked` | NAMESPACES: where such sockets can be |
//! | `namespaces` | finding the machine's network namespaces |
//! | `netlink` | asking the kernel for sockets, and to destroy them |
//! | `message` | the bytes of these questions and answers |

mod message;
mod namespaces;
mod netlink;
mod search;
mod tracked;
mod verdict;

use std::{
    path::Path,
    sync::mpsc::{Sender, channel},
    thread::JoinHandle,
};

use proxy_common::Protocol;

use self::search::Search;
use super::Error;
use crate::plan::ServicePortId;

/// The thread that searches, and whether there is something to search for.
#[derive(Debug)]
pub(super) struct Stale {
    /// `None` only while dropping: the thread ends when nobody can ask any more.
    ask: Option<Sender<()>>,
    due: bool,
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
        Ok(Self { ask: Some(ask), due: false, thread: Some(thread) })
    }

    /// Notes that an endpoint of this Service port went.
    pub(super) fn gone(&mut self, id: &ServicePortId) {
        self.due |= id.protocol == Protocol::Udp;
    }

    /// Starts a search if something was noted, or `anyway`; never waits. To be called when the tables are
    /// as the plan wants them.
    pub(super) fn look(&mut self, anyway: bool) {
        if (std::mem::take(&mut self.due) || anyway)
            && let Some(ask) = &self.ask
        {
            // The thread ends only with us.
            let _ = ask.send(());
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
