//! Read-only globals that the loader sets. They are constants to the verifier, which prunes the code that they
//! disable.

use aya_ebpf::Global;
use proxy_common::connection::SourcePorts;

/// Cookie of the network namespace of the node; 0 where user space cannot read it (before 5.14): the node then has
/// the initial network namespace.
#[unsafe(no_mangle)]
static NODE_NETNS: Global<u64> = Global::new(0);

/// 1 where `bpf_set_retval` exists (5.18, b44123b4a3dc).
#[unsafe(no_mangle)]
static HAS_SET_RETVAL: Global<u8> = Global::new(0);

/// 1 where the socket programs may ask for SO_REUSEPORT (6.1, 65ddc82d3b96).
#[unsafe(no_mangle)]
static HAS_REUSEPORT_OPTION: Global<u8> = Global::new(0);

/// 1 where a program that calls functions may be followed by another one (`bpf_tail_call`).
#[unsafe(no_mangle)]
static HAS_TAIL_CALLS: Global<u8> = Global::new(0);

/// 1 where the socket programs may ask which process calls.
#[unsafe(no_mangle)]
static HAS_CALLER: Global<u8> = Global::new(0);

/// 1 if the socket programs serve the node's own network namespace alone.
#[unsafe(no_mangle)]
static HOST_ONLY: Global<u8> = Global::new(0);

/// 1 if the socket programs pass by those namespaces of which BYPASSED says so.
#[unsafe(no_mangle)]
static PASSES_BY: Global<u8> = Global::new(0);

/// Length of SERVICES, and so of one shard of COUNTERS.
#[unsafe(no_mangle)]
static SERVICES_LEN: Global<u32> = Global::new(0);

/// Length of FRONTEND_LINES.
#[unsafe(no_mangle)]
static FRONTEND_LINES_LEN: Global<u32> = Global::new(0);

#[inline(always)]
pub(crate) fn frontend_lines() -> u32 {
    FRONTEND_LINES_LEN.load()
}

#[inline(always)]
pub(crate) fn node_netns() -> u64 {
    NODE_NETNS.load()
}

#[inline(always)]
pub(crate) fn host_only() -> bool {
    HOST_ONLY.load() != 0
}

#[inline(always)]
pub(crate) fn passes_by() -> bool {
    PASSES_BY.load() != 0
}

#[inline(always)]
pub(crate) fn has_set_retval() -> bool {
    HAS_SET_RETVAL.load() != 0
}

#[inline(always)]
pub(crate) fn has_reuseport_option() -> bool {
    HAS_REUSEPORT_OPTION.load() != 0
}

#[inline(always)]
pub(crate) fn has_caller() -> bool {
    HAS_CALLER.load() != 0
}

#[inline(always)]
pub(crate) fn has_tail_calls() -> bool {
    HAS_TAIL_CALLS.load() != 0
}

#[inline(always)]
pub(crate) fn services_len() -> u32 {
    SERVICES_LEN.load()
}

/// 1 where `bpf_fib_lookup` returns a source address (`BPF_FIB_LOOKUP_SRC`, 6.7, dab4e1f06cab).
#[unsafe(no_mangle)]
static HAS_FIB_SOURCE: Global<u8> = Global::new(0);

/// 1 if connections to endpoints on other nodes may take the fast path.
#[unsafe(no_mangle)]
static FAST_PATH: Global<u8> = Global::new(1);

/// The source port range for masquerading: first port, and number of ports.
#[unsafe(no_mangle)]
static SOURCE_PORT_FIRST: Global<u16> = Global::new(49_152);
#[unsafe(no_mangle)]
static SOURCE_PORT_COUNT: Global<u16> = Global::new(16_384);

/// Seconds that an unconfirmed UDP flow lives without a packet.
#[unsafe(no_mangle)]
static UDP_TIMEOUT_SECONDS: Global<u32> = Global::new(30);

#[inline(always)]
pub(crate) fn has_fib_source() -> bool {
    HAS_FIB_SOURCE.load() != 0
}

#[inline(always)]
pub(crate) fn fast_path() -> bool {
    FAST_PATH.load() != 0
}

#[inline(always)]
pub(crate) fn source_ports() -> (u16, u16) {
    (SOURCE_PORT_FIRST.load(), SOURCE_PORT_COUNT.load())
}

/// The source port range, for `proxy_common::connection`.
#[inline(always)]
pub(crate) fn ports() -> SourcePorts {
    let (first, count) = source_ports();
    SourcePorts { first, count }
}

#[inline(always)]
pub(crate) fn udp_timeout() -> u32 {
    UDP_TIMEOUT_SECONDS.load()
}

/// Number of regions in FLOWS.
#[unsafe(no_mangle)]
static FLOW_REGIONS: Global<u32> = Global::new(147);

/// Secret seed of the hash in FLOWS. Lives as long as the map.
#[unsafe(no_mangle)]
static FLOW_HASH_SEED: Global<u64> = Global::new(0);

#[inline(always)]
pub(crate) fn flow_regions() -> u32 {
    FLOW_REGIONS.load()
}

#[inline(always)]
pub(crate) fn flow_seed() -> u64 {
    FLOW_HASH_SEED.load()
}
