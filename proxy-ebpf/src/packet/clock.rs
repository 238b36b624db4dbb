//! The programs' clock.

use aya_ebpf::helpers::{bpf_jiffies64, bpf_ktime_get_ns};
use proxy_common::connection::Clock;

use crate::config;

/// The time when a processor last read the clock.
pub(super) struct Seconds {
    /// In jiffies.
    pub(super) jiffies: u64,
    /// In seconds since boot.
    seconds: u32,
}

/// The current time. Reading the clock costs more than anything but the lookups, so it is read once per tick of
/// the kernel (`bpf_jiffies64`, which the verifier makes a plain load), not once per packet.
#[inline(always)]
pub(super) fn clock(known: &mut Seconds) -> Clock {
    // SAFETY: the helpers take no pointers.
    let jiffies = unsafe { bpf_jiffies64() };
    if known.jiffies != jiffies || known.seconds == 0 {
        // SAFETY: as above.
        let nanoseconds = unsafe { bpf_ktime_get_ns() };
        known.jiffies = jiffies;
        known.seconds = (nanoseconds / 1_000_000_000) as u32;
        known.seconds |= u32::from(known.seconds == 0);
    }
    Clock { seconds: known.seconds, udp_timeout: config::udp_timeout() }
}
