//! Counts the system calls of one process, for `cargo xtask bench sync`. Built only with the feature `bench`.

use aya_ebpf::{
    Global,
    btf_maps::Array,
    helpers::bpf_get_current_pid_tgid,
    macros::{btf_map, raw_tracepoint},
    programs::RawTracePointContext,
};

use crate::count;

/// Process id in the initial PID namespace.
#[unsafe(no_mangle)]
static COUNTED_PROCESS: Global<u32> = Global::new(0);

#[btf_map]
static SYSTEM_CALLS: Array<u64, 1> = Array::new();

/// At `raw_syscalls/sys_enter`.
#[raw_tracepoint(tracepoint = "sys_enter")]
pub(crate) fn count_system_calls(_ctx: RawTracePointContext) -> i32 {
    if (bpf_get_current_pid_tgid() >> 32) as u32 == COUNTED_PROCESS.load()
        && let Some(counter) = SYSTEM_CALLS.get_ptr_mut(0)
    {
        count::add(counter);
    }
    0
}
