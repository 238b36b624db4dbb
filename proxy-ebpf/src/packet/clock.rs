//! The programs' clock.

use aya_ebpf::helpers::{bpf_jiffies64, bpf_ktime_get_ns};
use proxy_common::connection::Clock;

use crate::config;

/// When a processor last looked at the clock.
pub(super) struct Seconds {
    /// When it was looked at.
    pub(super) jiffies: u64,
    /// What it was, in seconds since boot.
    seconds: u32,
}

/// The time. Reading the clock takes longer than anything else but the lookups, so it is read once for each tick of the
/// kernel's (`bpf_jiffies64`, which the verifier makes a plain load), not for each packet.
#[inline(always)]
pub(super) fn clock(known: &mut Seconds) -> Clock {
    // SAFETY: helpers without pointers.
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
