//! Connections to Services that netfilter translates, as kube-proxy's rules left them. FOREIGN_PORTS gets the source
//! ports of those that are masqueraded, which no record of ours may get towards the same endpoint. OUTGOING gets the
//! exchanges of datagrams: one belongs to its conntrack entry as a TCP connection does, but has no SYN to tell where it
//! begins.

use std::{
    collections::HashSet,
    path::Path,
    time::{Duration, Instant},
};

use aya::maps::{HashMap, MapData};
use proxy_common::{FrontendKey, FrontendKind, Interface, Protocol, Tuple, connection::EXPECTED};

use crate::dataplane::{
    Error,
    node::{
        netlink::{Conntrack, Translated},
        system::uptime,
    },
    tables::{bitmaps::ForeignPorts, maps, pinned::Tables, shared::SharedTables},
};

/// How often to look while there are such connections: this long after one is over, its port is free, and its client's
/// datagrams begin an exchange of ours.
const PERIOD: Duration = Duration::from_secs(10);

/// The tables, and the way to the node's connection tracking.
#[derive(Debug)]
pub(crate) struct Foreign {
    ports: ForeignPorts,
    outgoing: HashMap<MapData, Tuple, u64>,
    tables: SharedTables,
    interfaces: HashMap<MapData, u32, Interface>,
    /// What OUTGOING got from here.
    noted: HashSet<Tuple>,
    /// Connections to a Service, which may be deleted before they end.
    known: HashSet<Tuple>,
    conntrack: Option<Conntrack>,
    /// Whether packets of pods pass a program: those to ClusterIPs, too.
    of_pods: bool,
    /// When to look again; `None` once there are none and can be no more.
    due: Option<Instant>,
}

impl Foreign {
    /// Opens the tables. `of_pods` says whether packets of pods pass a program.
    pub(crate) fn open(pin_dir: &Path, tables: SharedTables, of_pods: bool) -> Result<Self, Error> {
        let dir = maps::abi_dir(pin_dir);
        Ok(Self {
            ports: Tables::foreign_ports(pin_dir)?,
            outgoing: maps::hash(&dir, "OUTGOING")?,
            tables,
            interfaces: Tables::interfaces(pin_dir)?,
            noted: HashSet::new(),
            known: HashSet::new(),
            // Without netfilter there are none.
            conntrack: Conntrack::new().ok(),
            of_pods,
            due: Some(Instant::now()),
        })
    }

    /// Makes the tables equal to the conntrack table, if it is time.
    pub(crate) fn look_if_due(&mut self) {
        if self.due.is_some_and(|due| due <= Instant::now()) {
            self.look();
        }
    }

    /// The same at once.
    pub(crate) fn look(&mut self) {
        let Some(conntrack) = &self.conntrack else { return };
        self.due = Some(Instant::now() + PERIOD);
        let mut all = match conntrack.translated() {
            Ok(all) => all,
            Err(error) => {
                tracing::warn!(%error, "cannot list the connections that netfilter translates; trying again");
                return;
            }
        };
        // Others, such as those of host ports, may be there for ever.
        all.retain(|one| self.known.contains(&one.asked) || self.kind(one).is_some());
        self.known = all.iter().map(|one| one.asked).collect();
        tracing::debug!(connections = all.len(), "translated by netfilter");
        self.ports.replace(all.iter().filter(|one| one.masqueraded).map(|one| &one.answered));
        // Clients of ClusterIPs are on the node.
        let passes =
            |one: &&Translated| self.of_pods || self.kind(one) != Some(FrontendKind::ClusterIp as u8);
        let exchanges = all.iter().filter(|one| one.asked.protocol == Protocol::Udp as u8);
        let mut exchanges: Vec<&Translated> = exchanges.filter(passes).collect();
        // Where there are more than OUTGOING holds, those of clients outside displace those of pods, whose sockets are mostly
        // served by the hooks.
        exchanges.sort_by_cached_key(|one| self.kind(one) != Some(FrontendKind::ClusterIp as u8));
        self.note(&exchanges);
        // Once a device is recorded, new ones are ours.
        if all.is_empty() && self.interfaces.keys().next().is_some() {
            self.due = None;
        }
    }

    /// The kind of frontend that was asked; `None` if it is no Service's.
    fn kind(&self, one: &Translated) -> Option<u8> {
        let tables = self.tables.now();
        let found = |key: &FrontendKey| tables.frontends.get(key, 0).ok();
        one.frontends().iter().find_map(found).map(|frontend| frontend.kind)
    }

    /// Makes OUTGOING have these exchanges, and those that the programs note.
    fn note(&mut self, exchanges: &[&Translated]) {
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
