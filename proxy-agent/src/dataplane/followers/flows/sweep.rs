//! One pass over all confirmed connections, which makes idle ones evictable.
//!
//! Connections of removed Services and endpoints are treated alike (ST-4). The next packet confirms a connection
//! again that the sweep gave up too early.

use super::verdict::{Verdict, verdict};
use crate::{dataplane::tables::flow_table::FlowTable, timeouts::Timeouts};

/// What a sweep found.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Swept {
    /// How many confirmed connections there were.
    pub(super) confirmed: usize,
    /// How many of them were released.
    pub(super) released: usize,
    /// After how many seconds the first of the others can time out.
    pub(super) earliest: Option<u64>,
}

/// Releases the slots of connections that are idle at `now`, in seconds since boot.
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
