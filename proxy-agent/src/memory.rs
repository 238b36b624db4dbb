//! The agent's own memory.

/// Returns free memory to the kernel. A first sync decodes a whole cluster, and loading iterators the types of a whole
/// kernel; without this their pages would stay with the agent for ever.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointer, and touches only free memory.
    unsafe {
        libc::malloc_trim(0);
    }
}
