//! Counters: relaxed additions to memory that the agent maps. No atomics that fetch, which 5.10 lacks.

use core::arch::asm;

use aya_ebpf::helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns};
use proxy_common::{NodeEvent, Rate, Reason, RefusedPair, ServiceCounters, ServiceRefusals, counters::shard};

use crate::{
    config,
    tables::{COUNTERS, REFUSALS, TOTALS},
};

/// Counts a connection, or a UDP flow of a socket, to an endpoint of `service`. `remembered`: affinity chose the
/// endpoint.
#[inline(always)]
pub(crate) fn connection(service: u32, remembered: bool) {
    if let Some(counters) = of_service(service) {
        let mut slot = u64::from(remembered);
        // Arithmetic instead of a branch, which the verifier would walk once more for each path that leads here.
        // The mask bounds the slot for the verifier.
        // SAFETY: the instruction changes one register.
        unsafe { asm!("{0} &= 1", inout(reg) slot, options(nomem, nostack)) };
        // SAFETY: the map's element, `drawn` and then `remembered`, lives as long as the program runs and is
        // eight-byte aligned.
        add(unsafe { counters.cast::<u64>().add(slot as usize) });
    }
}

/// Counts a refusal or a loss for the node, and a refusal for its Service if known.
#[inline(always)]
pub(crate) fn refusal(pair: &RefusedPair) {
    const { assert!(ServiceRefusals::LEN == 16 && Reason::LIMIT == 16) };
    let what = pair.what;
    // Without a Service there is no such element.
    if what < Reason::LIMIT
        && let Some(refusals) = REFUSALS.get_ptr_mut(pair.service)
    {
        // SAFETY: as in `connection`; the slot is one of the sixteen.
        add(unsafe { refusals.cast::<u64>().add((what & 15) as usize) });
    }
    total(what);
}

/// Counts a translation that OVERFLOW has no room for.
#[inline(always)]
pub(crate) fn unrecorded(service: u32) {
    if let Some(refusals) = REFUSALS.get_ptr_mut(service) {
        // SAFETY: as in `connection`.
        add(unsafe { &raw mut (*refusals).unrecorded });
    }
}

/// Counts what happens to sockets and packets beyond translation.
#[inline(always)]
pub(crate) fn event(what: NodeEvent) {
    total(what as u32);
}

#[inline(always)]
fn total(index: u32) {
    if let Some(counter) = TOTALS.get_ptr_mut(index) {
        add(counter);
    }
}

/// Begins to load what [`connection`] adds to.
#[inline(always)]
pub(crate) fn expect(service: u32) {
    if let Some(counters) = of_service(service) {
        // SAFETY: an aligned word of the map's element, which lives as long as the program runs.
        unsafe { (&raw const (*counters).drawn).read_volatile() };
    }
}

#[inline(always)]
fn of_service(service: u32) -> Option<*mut ServiceCounters> {
    // SAFETY: the helper takes no pointers.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    COUNTERS.get_ptr_mut(shard(cpu, service, config::services_len()))
}

/// Adds one to a word of a map.
#[inline(always)]
pub(crate) fn add(counter: *mut u64) {
    // `core` has no atomic addition for this target, and the kernel before 5.12 none that fetches.
    // SAFETY: `counter` points to an aligned word of a map's element, which lives as long as the program runs.
    unsafe { asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) counter, in(reg) 1_u64, options(nostack)) };
}

/// Whether the rate limit of `most` per second permits one more. Processors may count past each other, so the
/// limit is approximate.
#[inline(always)]
pub(crate) fn take(rate: Option<*mut Rate>, most: u64) -> bool {
    let Some(rate) = rate else { return false };
    // SAFETY: the helper takes no pointers.
    let second = unsafe { bpf_ktime_get_ns() } / 1_000_000_000;
    // SAFETY: aligned words of a map's element, which lives as long as the program runs.
    unsafe {
        let (current, done) = (&raw mut (*rate).second, &raw mut (*rate).done);
        if current.read_volatile() != second {
            current.write_volatile(second);
            done.write_volatile(0);
        }
        if done.read_volatile() >= most {
            return false;
        }
        add(done);
    }
    true
}
