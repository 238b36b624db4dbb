//! An API server's double: list and watch of Services, EndpointSlices and Nodes, over real HTTP.
//!
//! It answers what kube clients ask, by the rules of the real one: pages of one snapshot, label and field
//! selectors (an object that a selector no longer matches is DELETED for that watch), watches that resume at a
//! version, bookmarks, and 410 where the history has been forgotten. What it does not know it answers with 400,
//! so that a test cannot pass by asking for something else. Objects are ordinary JSON; nothing is validated.
//!
//! What never happens: it never answers outside of the network namespace it was started in.

mod journal;
mod respond;
mod selector;
mod serve;
mod store;
mod watching;

pub use journal::{Asked, Recorded};
pub use respond::Body;
pub use serve::ApiServer;
pub use store::Kind;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use hyper::body::Bytes;
use serde_json::Value;
use tokio::sync::watch;

use journal::Journal;
use store::Store;

/// What the server holds; every clone is the same server. Usable without a network: see [`Objects::respond`].
#[derive(Clone, Debug)]
pub struct Objects(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    store: Mutex<Store>,
    /// The version of the last change; who watches waits for it to move.
    version: watch::Sender<u64>,
    /// What is left of lists that are being read page by page, by their `continue`.
    pages: Mutex<HashMap<u64, Vec<Bytes>>>,
    journal: Mutex<Journal>,
}

impl Default for Objects {
    fn default() -> Self {
        let store = Store::default();
        let version = watch::Sender::new(store.version());
        let (store, pages, journal) = (Mutex::new(store), Mutex::default(), Mutex::default());
        Self(Arc::new(Shared { store, version, pages, journal }))
    }
}

impl Objects {
    /// Creates or replaces an object, by its `kind`, namespace and name, and returns its `resourceVersion`.
    pub fn put(&self, object: Value) -> u64 {
        self.change(|store| store.put(object))
    }

    /// Deletes an object, if there is one.
    pub fn delete(&self, kind: Kind, namespace: &str, name: &str) {
        self.change(|store| store.delete(kind, namespace, name));
    }

    /// Forgets the history: a watch from an older version than now's gets 410.
    pub fn compact(&self) {
        locked(&self.0.store).compact();
    }

    /// The `resourceVersion` of the last change.
    pub fn version(&self) -> u64 {
        locked(&self.0.store).version()
    }

    /// What has been asked so far, in order.
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
        // While the store is locked, so that versions are announced in order.
        self.0.version.send_replace(store.version());
        outcome
    }
}

/// What a panicking test left is still good enough for its clean-up.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
