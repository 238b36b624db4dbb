//! A test double of an API server: list and watch of Services, EndpointSlices and Nodes, over real HTTP.
//!
//! It answers requests of kube clients by the rules of a real one: pages of one snapshot, label and field selectors (a
//! watch sees an object that its selector no longer matches as DELETED), watches that resume at a version, bookmarks,
//! and 410 if the history is gone. It answers unknown requests with 400, so that no test passes with another request.
//! Objects are ordinary JSON and are not validated. Tests inject faults ([`Fault`], [`Slip`]).
//!
//! What never happens: an answer outside of the network namespace in which it was started.

mod faults;
mod journal;
mod pages;
mod respond;
mod selector;
mod serve;
mod store;
mod telling;
mod watching;

pub use faults::{FOR_EVER, Fault, Of, Slip};
pub use journal::{Asked, Recorded};
pub use respond::Body;
pub use serve::ApiServer;
pub use store::Kind;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::sync::watch;

use faults::Faults;
use journal::Journal;
use pages::Pages;
use store::Store;

/// The server's objects; clones share them. Usable without a network: see [`Objects::respond`].
#[derive(Clone, Debug)]
pub struct Objects(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    store: Mutex<Store>,
    /// The version of the last change; watches wait for it to change.
    version: watch::Sender<u64>,
    pages: Mutex<Pages>,
    faults: Mutex<Faults>,
    journal: Mutex<Journal>,
}

impl Default for Objects {
    fn default() -> Self {
        let store = Store::default();
        let version = watch::Sender::new(store.version());
        Self(Arc::new(Shared {
            store: Mutex::new(store),
            version,
            pages: Mutex::default(),
            faults: Mutex::default(),
            journal: Mutex::default(),
        }))
    }
}

impl Objects {
    /// Creates or replaces an object, by its `kind`, namespace and name, and returns its `resourceVersion`.
    pub fn put(&self, object: Value) -> u64 {
        self.change(|store| store.put(object))
    }

    /// Deletes an object, if it exists.
    pub fn delete(&self, kind: Kind, namespace: &str, name: &str) {
        self.change(|store| store.delete(kind, namespace, name));
    }

    /// Forgets the history and the state of lists: a watch from an older version gets 410, and so does a later page.
    pub fn compact(&self) {
        locked(&self.0.store).compact();
        locked(&self.0.pages).clear();
    }

    /// The `resourceVersion` of the last change.
    pub fn version(&self) -> u64 {
        locked(&self.0.store).version()
    }

    /// The requests so far, in order.
    pub fn asked(&self) -> Vec<Asked> {
        locked(&self.0.journal).asked.clone()
    }

    /// Objects that clients have written (events), in order.
    pub fn recorded(&self) -> Vec<Recorded> {
        locked(&self.0.journal).recorded.clone()
    }

    fn change<T>(&self, change: impl FnOnce(&mut Store) -> T) -> T {
        let mut store = locked(&self.0.store);
        let outcome = change(&mut store);
        // With the store locked, so that versions are announced in order.
        self.0.version.send_replace(store.version());
        outcome
    }
}

/// Ignores poisoning: the state is still good enough for a panicking test's clean-up.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
