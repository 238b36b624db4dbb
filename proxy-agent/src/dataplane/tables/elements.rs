//! Inserting and deleting elements of the tables that are not mapped: for the agent's one writer, all of them.

use std::{borrow::Borrow, io};

use aya::{
    Pod,
    maps::{HashMap, LpmTrie, MapData, MapError, lpm_trie::Key},
    sys::SyscallError,
};

use super::crash;

/// A table whose elements are written by system calls.
pub(super) trait Elements<K, V> {
    /// Inserts an element, or overwrites it.
    fn enter(&mut self, key: impl Borrow<K>, value: V) -> Result<(), MapError>;

    /// Deletes an element. Nothing happens if it is not there.
    fn withdraw(&mut self, key: &K);
}

impl<K: Pod, V: Pod> Elements<K, V> for HashMap<MapData, K, V> {
    fn enter(&mut self, key: impl Borrow<K>, value: V) -> Result<(), MapError> {
        crash::point();
        if crash::no_memory() {
            return Err(no_memory());
        }
        self.insert(key, value, 0)
    }

    fn withdraw(&mut self, key: &K) {
        crash::point();
        let _ = self.remove(key);
    }
}

impl<K: Pod, V: Pod> Elements<Key<K>, V> for LpmTrie<MapData, K, V> {
    fn enter(&mut self, key: impl Borrow<Key<K>>, value: V) -> Result<(), MapError> {
        crash::point();
        if crash::no_memory() {
            return Err(no_memory());
        }
        self.insert(key.borrow(), value, 0)
    }

    fn withdraw(&mut self, key: &Key<K>) {
        crash::point();
        let _ = self.remove(key);
    }
}

fn no_memory() -> MapError {
    let io_error = io::Error::from_raw_os_error(libc::ENOMEM);
    MapError::SyscallError(SyscallError { call: "bpf_map_update_elem", io_error })
}
