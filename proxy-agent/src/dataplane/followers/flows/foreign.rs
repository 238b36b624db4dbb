//! Connections that netfilter translates, as kube-proxy's rules left them. FOREIGN_PORTS gets the source ports of those
//! that are masqueraded, which no record of ours may get towards the same endpoint. OUTGOING gets the exchanges of
//! datagrams: one belongs to its conntrack entry as a TCP connection does, but has no SYN to tell where it begins.

use std::{
    collections::HashSet,
    path::Path,
    time::{Duration, Instant},
};

use aya::maps::{HashMap, MapData};
use proxy_common::{Frontend, FrontendKey, Protocol, Tuple, connection::EXPECTED};

use crate::dataplane::{
    Error,
    node::{
        netlink::{Conntrack, Translated},
        system::uptime,
    },
    tables::{bitmaps::ForeignPorts, maps, pinned::Tables},
};

/// How often to look while there are such connections: this long after one is over, its port is free, and its client's
/// datagrams begin an exchange of ours.
const PERIOD: Duration = Duration::from_secs(10);

/// The tables, and the way to the node's connection tracking.
#[derive(Debug)]
pub(super) struct Foreign {
    ports: ForeignPorts,
    outgoing: HashMap<MapData, Tuple, u64>,
    frontends: HashMap<MapData, FrontendKey, Frontend>,
    /// What OUTGOING got from here.
    noted: HashSet<Tuple>,
    conntrack: Option<Conntrack>,
    /// When to look again; `None` once there was none: the rules see no new connections beside ours.
    due: Option<Instant>,
}

impl Foreign {
    /// Opens the tables, and looks for the first time.
    pub(super) fn open(pin_dir: &Path) -> Result<Self, Error> {
        let mut foreign = Self {
            ports: Tables::foreign_ports(pin_dir)?,
            outgoing: maps::hash(&maps::abi_dir(pin_dir), "OUTGOING")?,
            frontends: maps::hash(&maps::abi_dir(pin_dir), "FRONTENDS")?,
            noted: HashSet::new(),
            // Without netfilter there are none.
            conntrack: Conntrack::new().ok(),
            due: Some(Instant::now()),
        };
        foreign.look();
        Ok(foreign)
    }

    /// Makes the tables equal to the conntrack table, if it is time.
    pub(super) fn look(&mut self) {
        let Some(conntrack) = &self.conntrack else { return };
        if self.due.is_none_or(|due| due > Instant::now()) {
            return;
        }
        self.due = Some(Instant::now() + PERIOD);
        // Others, such as those of host ports, may be there for ever. Before the first Service is installed, any may be one's.
        let is_empty = self.frontends.keys().next().is_none();
        let is_known = |key: &FrontendKey| self.frontends.get(key, 0).is_ok();
        match conntrack.translated() {
            Ok(mut all) => {
                all.retain(|one| is_empty || one.frontends().iter().any(is_known));
                tracing::debug!(connections = all.len(), "translated by netfilter");
                self.ports.replace(all.iter().filter(|one| one.masqueraded).map(|one| &one.answered));
                self.note(all.iter().filter(|one| one.asked.protocol == Protocol::Udp as u8));
                if all.is_empty() {
                    self.due = None;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot list the connections that netfilter translates; trying again");
            }
        }
    }

    /// Makes OUTGOING have these exchanges, and those that the programs note.
    fn note<'a>(&mut self, exchanges: impl Iterator<Item = &'a Translated>) {
        let (now, mut noted) = (u64::from(uptime()), HashSet::new());
        for exchange in exchanges {
            // As its answers leave: from the frontend to the client.
            let tuple = exchange.asked.reversed();
            // The note must not outlast the conntrack entry: nobody would translate. Where it cannot be written, the
            // next datagram begins an exchange of ours.
            let when = (now + u64::from(exchange.seconds)).saturating_sub(1 + EXPECTED);
            let _ = self.outgoing.insert(tuple, when, 0);
            noted.insert(tuple);
        }
        for tuple in self.noted.difference(&noted) {
            let _ = self.outgoing.remove(tuple);
        }
        self.noted = noted;
    }
}
