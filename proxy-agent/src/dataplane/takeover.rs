//! Takes a node over from kube-proxy: removes its rules, and breaks none of the connections that they translated.
//!
//! The kernel goes on to translate a connection that conntrack knows after the rule is gone, but only while NAT and
//! conntrack are on. So one transaction deletes the rules that decide and makes a chain that keeps both on; that chain
//! and the rules that accept packets go when conntrack has no connection of kube-proxy's any more.

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
};

use proxy_common::{Protocol, Tables as _, Tuple};

use super::{
    Error,
    node::{
        kube_proxy::{KubeProxyTable, Rules},
        netlink::{Conntrack, Nftables, Translated},
    },
    tables::pinned::Tables,
};

/// How often to try again where somebody changed the rules meanwhile.
const ATTEMPTS: usize = 3;

/// The way to kube-proxy's rules and connections.
#[derive(Debug)]
pub struct Takeover {
    tables: Tables,
    nftables: Nftables,
    conntrack: Conntrack,
    /// Connections to a Service, which may be deleted before they end.
    known: HashSet<Tuple>,
}

/// What is there of kube-proxy's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// Its rules in each table.
    pub tables: Vec<KubeProxyTable>,
    /// Whether some decide where connections go.
    pub decides: bool,
    /// Whether there is nothing to remove, of kube-proxy's or of an earlier takeover.
    pub is_over: bool,
}

/// Connections that are not over, by protocol.
pub type Left = BTreeMap<String, usize>;

impl Takeover {
    /// Opens the Sidestep tables below `pin_dir`, which say what a Service is, and netfilter in the calling thread's
    /// network namespace.
    pub fn open(pin_dir: &Path) -> Result<Self, Error> {
        let (tables, nftables, conntrack) = (Tables::open(pin_dir)?, Nftables::new()?, Conntrack::new()?);
        Ok(Self { tables, nftables, conntrack, known: HashSet::new() })
    }

    /// Looks at kube-proxy's rules.
    pub fn found(&self) -> Result<Found, Error> {
        let rules = Rules::read(&self.nftables)?;
        Ok(Found { decides: rules.decides(), is_over: rules.is_empty(), tables: rules.tables })
    }

    /// Removes the rules that decide.
    pub fn remove(&self) -> Result<(), Error> {
        self.retried(Rules::delete_deciding)
    }

    /// Removes what only connections of kube-proxy's need.
    pub fn finish(&self) -> Result<(), Error> {
        self.retried(Rules::delete_rest)
    }

    /// Another program may delete what we just read.
    fn retried(&self, step: fn(&Rules, &Nftables) -> Result<(), Error>) -> Result<(), Error> {
        let mut attempt = 1;
        loop {
            let rules = Rules::read(&self.nftables)?;
            match step(&rules, &self.nftables) {
                Err(error) if attempt < ATTEMPTS => {
                    tracing::debug!(%error, attempt, "the rules changed meanwhile");
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    /// Counts kube-proxy's connections that are not over.
    pub fn count(&mut self) -> Result<Left, Error> {
        let mut left = Left::new();
        for connection in self.connections()?.iter().filter(|connection| !connection.over) {
            let number = connection.asked.protocol;
            let name = Protocol::from_number(number).map_or(number.to_string(), |name| name.to_string());
            *left.entry(name).or_default() += 1;
        }
        Ok(left)
    }

    /// Forgets kube-proxy's connections that are over, and counts the others. A new connection to the same endpoint from
    /// the same port would count as an old one's answer, and fail.
    pub fn left(&mut self) -> Result<Left, Error> {
        for connection in self.connections()?.iter().filter(|connection| connection.over) {
            self.conntrack.delete(&connection.asked)?;
        }
        self.count()
    }

    fn connections(&mut self) -> Result<Vec<Translated>, Error> {
        let Self { tables, conntrack, known, .. } = self;
        let mut all = conntrack.translated()?;
        all.retain(|one| {
            known.contains(&one.asked) || one.frontends().iter().any(|key| tables.frontend(key).is_some())
        });
        *known = all.iter().map(|one| one.asked).collect();
        Ok(all)
    }
}

/// Removes what a takeover or a drain left outside of the tables: the chain that keeps NAT on, and entries of conntrack.
/// Returns whether there was anything.
pub fn release() -> Result<bool, Error> {
    let (nftables, conntrack) = (Nftables::new()?, Conntrack::new()?);
    let held = Rules::read(&nftables)?.release(&nftables)?;
    let reserved = conntrack.reserved()?;
    for tuple in &reserved {
        conntrack.delete(tuple)?;
    }
    Ok(held || !reserved.is_empty())
}
