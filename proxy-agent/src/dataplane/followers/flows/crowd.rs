//! Whether FLOWS has room for what may come. A burst fills a small table quickly, so it is looked at often, as long as it
//! may grow.

use std::{sync::Arc, time::Duration};

use tokio::sync::Notify;

use super::strays;
use crate::dataplane::tables::{
    flow_table::{FlowTable, Recent},
    pinned::Tables,
};

/// How often to look at a table that may grow.
const PERIOD: Duration = Duration::from_millis(250);
/// For how many seconds an unconfirmed connection takes room: longer than a handshake.
const HANDSHAKE: u8 = 16;

/// Who is told, and up to which room.
#[derive(Clone, Debug, Default)]
pub(crate) struct Crowd {
    /// How many connections the table may grow to have room for.
    limit: u32,
    grow: Arc<Notify>,
}

impl Crowd {
    /// Of a table that may grow to this many connections; 0 if it never does.
    pub(crate) fn new(limit: u32) -> Self {
        Self { limit, grow: Arc::default() }
    }

    /// Notified when the table is to grow.
    pub(crate) fn grow(&self) -> Arc<Notify> {
        Arc::clone(&self.grow)
    }

    /// When to look again.
    pub(super) fn period(&self, tables: &Tables) -> Duration {
        if self.may_grow(tables) { PERIOD } else { strays::PERIOD }
    }

    /// Looks, at `now` in seconds since boot.
    pub(super) fn look(&self, tables: &Tables, now: u32) {
        if self.may_grow(tables) && is_crowded(&tables.flows, now) {
            self.grow.notify_one();
        }
    }

    fn may_grow(&self, tables: &Tables) -> bool {
        (1..self.limit).contains(&tables.flows_room())
    }
}

/// Whether a quarter of the slots are in use: the rest is for those that come while the table grows.
pub(super) fn is_crowded(flows: &FlowTable, now: u32) -> bool {
    flows.in_use(Recent { now, seconds: HANDSHAKE }) >= flows.room() / 4
}
