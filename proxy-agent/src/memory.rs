//! The agent's own memory.

use std::{collections::HashMap, hash::Hash};

/// Returns free memory to the kernel. A first sync decodes a whole cluster, loading iterators the types of a whole kernel,
/// and a burst of changes may be as large; without this their pages would stay with the agent for ever.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointer, and touches only free memory.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Gives back what a map has room for, once most of it is gone: a map never does by itself.
pub(crate) fn shrink<K: Eq + Hash, V>(map: &mut HashMap<K, V>) {
    if map.capacity() / 4 > map.len() {
        map.shrink_to(map.len() * 2);
    }
}
