//! Read-only globals that the loader sets: constants to the verifier, which prunes what they switch off.

use aya_ebpf::Global;

/// Cookie of the node's network namespace; 0 where the kernel cannot tell user space (before 5.14): then
/// the initial network namespace is the node's.
#[unsafe(no_mangle)]
static NODE_NETNS: Global<u64> = Global::new(0);

/// 1 where `bpf_set_retval` exists (5.18, b44123b4a3dc).
#[unsafe(no_mangle)]
static HAS_SET_RETVAL: Global<u8> = Global::new(0);

/// Length of SERVICES, and so of one shard of COUNTERS.
#[unsafe(no_mangle)]
static SERVICES_LEN: Global<u32> = Global::new(0);

#[inline(always)]
pub(crate) fn node_netns() -> u64 {
    NODE_NETNS.load()
}

#[inline(always)]
pub(crate) fn has_set_retval() -> bool {
    HAS_SET_RETVAL.load() != 0
}

#[inline(always)]
pub(crate) fn services_len() -> u32 {
    SERVICES_LEN.load()
}
