//! STRAYS: fast-path connections of which the node's stack still saw a packet, for instance because only the stack
//! can report that it was too long. Conntrack may then consider the connection established, for days after its end
//! (ST-12). So the agent removes the conntrack entry when the connection ends.

use std::{path::Path, time::Duration};

use aya::maps::{HashMap, MapData};
use proxy_common::{Tuple, connection::Seen};

use crate::dataplane::{
    Error,
    node::netlink::Conntrack,
    tables::{flow_table::FlowTable, maps},
};

/// How often to check.
pub(super) const PERIOD: Duration = Duration::from_secs(10);
/// How many seconds an unconfirmed connection counts as alive.
const HANDSHAKE: u32 = 120;

/// The table, and the way to the node's connection tracking.
#[derive(Debug)]
pub(super) struct Strays {
    table: HashMap<MapData, Tuple, u64>,
    conntrack: Option<Conntrack>,
}

impl Strays {
    pub(super) fn open(pin_dir: &Path) -> Result<Self, Error> {
        let table = maps::hash(&maps::abi_dir(pin_dir), "STRAYS")?;
        // Without netfilter there are no entries to delete.
        Ok(Self { table, conntrack: Conntrack::new().ok() })
    }

    /// Removes the conntrack entries of strays that have ended at `now`, in seconds since boot.
    pub(super) fn look(&mut self, flows: &FlowTable, now: u32) {
        let noted: Vec<Tuple> = self.table.keys().filter_map(Result::ok).collect();
        for tuple in noted.into_iter().filter(|tuple| !is_live(flows, tuple, now)) {
            let deleted = self.conntrack.as_ref().map(|conntrack| conntrack.delete(&tuple));
            if let Some(Err(error)) = deleted {
                tracing::warn!(%error, "cannot remove the conntrack entry of an ended connection; trying again");
                continue;
            }
            let _ = self.table.remove(&tuple);
        }
    }
}

/// Whether the client has a connection to the endpoint.
fn is_live(flows: &FlowTable, tuple: &Tuple, now: u32) -> bool {
    flows.of_client(&tuple.source, tuple.source_port, tuple.protocol).any(|found| {
        let ends = &found.record.ends;
        let is_recent = now.saturating_sub(found.record.origin.seconds) <= HANDSHAKE;
        ends.to() == tuple.to() && !Seen::ended(ends.seen) && (found.kept || is_recent)
    })
}
