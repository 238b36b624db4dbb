//! One look at all confirmed connections, which makes ordinary ones of those that are idle: others may take their slots.
//!
//! A connection of a Service or endpoint that is gone is one like others (ST-4). One that was given up too early is confirmed again
//! with its next packet.

use super::verdict::{Verdict, verdict};
use crate::{dataplane::tables::flow_table::FlowTable, timeouts::Timeouts};

/// What a sweep found.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Swept {
    /// How many confirmed connections there were.
    pub(super) confirmed: usize,
    /// How many of them went.
    pub(super) released: usize,
    /// In how many seconds the first of the others can go.
    pub(super) earliest: Option<u64>,
}

/// Gives back the slots of what is idle at `now`, in seconds since boot.
pub(super) fn sweep(table: &FlowTable, timeouts: &Timeouts, now: u32) -> Swept {
    let mut swept = Swept::default();
    table.visit(|found| {
        if !found.kept {
            return;
        }
        swept.confirmed += 1;
        match verdict(timeouts, now, &found.record) {
            Verdict::Release => swept.released += usize::from(table.release(found)),
            Verdict::Keep(seconds) => {
                swept.earliest = Some(swept.earliest.map_or(seconds, |first| first.min(seconds)));
            }
        }
    });
    swept
}
