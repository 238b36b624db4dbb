//! FLOWS and FLOWS_NEW, as `proxy_common::nat` uses them.

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST},
    helpers::{bpf_jiffies64, bpf_ktime_get_ns},
};
use proxy_common::{
    Flow, FlowKey, Life, Total,
    nat::{Clock, Flows, Table},
    select::is_serving,
};

use crate::{
    config, count,
    tables::{FLOWS, FLOWS_NEW, Maps},
};

/// The time as a processor knows it.
pub(super) struct Seconds {
    /// When it was looked at.
    jiffies: u64,
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
        let nanoseconds = unsafe { bpf_ktime_get_ns() };
        known.jiffies = jiffies;
        known.seconds = (nanoseconds / 1_000_000_000) as u32;
        known.seconds |= u32::from(known.seconds == 0);
    }
    Clock { seconds: known.seconds, udp_timeout: config::udp_timeout() }
}

/// A copy of an element.
///
/// # Safety
/// `pointer` leads to a value of FLOWS or FLOWS_NEW.
#[inline(always)]
unsafe fn copy(pointer: *const Flow) -> Flow {
    let words = pointer.cast::<u64>();
    // SAFETY: the caller's promise: five aligned words. Whether they belong together their check says.
    bytemuck::must_cast::<[u64; 5], Flow>(unsafe {
        [
            words.read_volatile(),
            words.add(1).read_volatile(),
            words.add(2).read_volatile(),
            words.add(3).read_volatile(),
            words.add(4).read_volatile(),
        ]
    })
}

#[inline(always)]
fn pointer(table: Table, key: &FlowKey) -> Option<*mut Flow> {
    match table {
        Table::Confirmed => FLOWS.get_ptr_mut(key),
        Table::New => FLOWS_NEW.get_ptr_mut(key),
    }
}

impl Flows for Maps {
    type Place = *mut Life;

    #[inline(always)]
    fn find(&self, table: Table, key: &FlowKey) -> Option<(Flow, Self::Place)> {
        let place = pointer(table, key)?;
        // SAFETY: a value of the table.
        let flow = unsafe { copy(place) };
        if flow.is_of(key) {
            // SAFETY: within the value.
            return Some((flow, unsafe { &raw mut (*place).life }));
        }
        None
    }

    #[inline(always)]
    fn has(&self, table: Table, key: &FlowKey) -> bool {
        pointer(table, key).is_some()
    }

    #[inline(always)]
    fn set_life(&self, place: Self::Place, life: Life) {
        // SAFETY: an aligned word of a map's value, which stays one as long as the program runs. Should the element have
        // been given to another flow, that one lives a little longer.
        unsafe { place.cast::<u64>().write_volatile(bytemuck::must_cast(life)) };
    }

    #[inline(always)]
    fn insert(&self, table: Table, key: &FlowKey, flow: &Flow, only_new: bool) -> bool {
        let flags = u64::from(if only_new { BPF_NOEXIST } else { BPF_ANY });
        match table {
            Table::Confirmed => FLOWS.insert(key, flow, flags).is_ok(),
            Table::New => FLOWS_NEW.insert(key, flow, flags).is_ok(),
        }
    }

    #[inline(always)]
    fn remove(&self, table: Table, key: &FlowKey) {
        // What is not there need not be removed.
        let _ = match table {
            Table::Confirmed => FLOWS.remove(key),
            Table::New => FLOWS_NEW.remove(key),
        };
    }

    #[inline(always)]
    fn is_serving(&self, endpoint: u32, generation: u16) -> bool {
        is_serving(self, endpoint, generation)
    }

    #[inline(always)]
    fn count(&self, what: Total) {
        count::event(what);
    }
}
