//! Takes a node over from kube-proxy: removes its rules, and breaks none of the connections that they translated.
//!
//! The kernel goes on to translate a connection that conntrack knows after the rule is gone, but only while NAT and
//! conntrack are on. So one transaction deletes the rules that decide and makes a chain that keeps both on; that chain
//! and the rules that accept packets go when conntrack has no connection of kube-proxy's any more.

use std::{
    collections::{BTreeMap, HashSet},
    path::{Path, PathBuf},
    thread::sleep,
    time::Duration,
};

use proxy_common::{Protocol, Tables as _, Tuple};

use super::{
    Error,
    followers::stale::Untranslated,
    node::{
        kube_proxy::{self, KubeProxyTable, Rules},
        netlink::{Conntrack, Nftables, Translated},
    },
    shadow::{self, Comparison},
    tables::pinned::Tables,
};

/// How often to try again where somebody changed the rules meanwhile.
const ATTEMPTS: usize = 3;
/// How often to look at a difference before it is no change in flight, and how long to wait in between: kube-proxy
/// follows a change within a second or two (`minSyncPeriod`).
const LOOKS: usize = 5;
const BETWEEN: Duration = Duration::from_secs(1);

/// The way to kube-proxy's rules and connections.
#[derive(Debug)]
pub struct Takeover {
    pin_dir: PathBuf,
    nftables: Nftables,
    conntrack: Conntrack,
    /// Connections to a Service, which may be deleted before they end.
    known: HashSet<Tuple>,
    /// Where the sockets are that our programs serve.
    cgroup_root: PathBuf,
    /// UDP sockets that were connected to their Services again.
    reconnected: Untranslated,
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
    /// network namespace. The programs of sockets are attached to `cgroup_root`.
    pub fn open(pin_dir: &Path, cgroup_root: &Path) -> Result<Self, Error> {
        let (nftables, conntrack) = (Nftables::new()?, Conntrack::new()?);
        Ok(Self {
            pin_dir: pin_dir.to_owned(),
            nftables,
            conntrack,
            known: HashSet::new(),
            cgroup_root: cgroup_root.to_owned(),
            reconnected: Untranslated::default(),
        })
    }

    /// Those of now: they may grow while we wait.
    fn tables(&self) -> Result<Tables, Error> {
        Tables::open(&self.pin_dir)
    }

    /// Looks at kube-proxy's rules.
    pub fn found(&self) -> Result<Found, Error> {
        let rules = Rules::read(&self.nftables)?;
        Ok(Found { decides: rules.decides(), is_over: rules.is_empty(), tables: rules.tables })
    }

    /// Compares what kube-proxy serves with what Sidestep serves. What matters is looked at again for some seconds, as a
    /// change may be in flight. `follows` says whether kube-proxy still runs and follows changes.
    pub fn compare(&self, follows: bool) -> Result<Comparison, Error> {
        let look = || {
            let theirs = kube_proxy::serves(&self.nftables)?;
            Ok::<_, Error>(shadow::compare(&theirs, &shadow::serves(&self.tables()?)?, follows))
        };
        let mut found = look()?;
        for _ in 1..LOOKS {
            if found.that_matter().next().is_none() {
                break;
            }
            sleep(BETWEEN);
            found = look()?.after(&found);
        }
        Ok(found)
    }

    /// Removes the rules that decide. Connected UDP sockets without an entry in conntrack would lose their Service with
    /// them, and are connected again.
    pub fn remove(&mut self) -> Result<(), Error> {
        self.connections()?;
        self.connect_again(Self::is_known)?;
        self.retried(Rules::delete_deciding)
    }

    /// Removes what only connections of kube-proxy's need. Connected UDP sockets that are left go to Sidestep.
    pub fn finish(&mut self) -> Result<(), Error> {
        self.connect_again(|_, _| false)?;
        self.retried(Rules::delete_rest)
    }

    /// How many UDP sockets were connected to their Services again, and how many could not be.
    pub const fn reconnected(&self) -> (usize, usize) {
        (self.reconnected.connected, self.reconnected.lost)
    }

    fn is_known(&self, tuple: &Tuple) -> bool {
        self.known.contains(tuple)
    }

    fn connect_again(&mut self, is_translated: fn(&Self, &Tuple) -> bool) -> Result<(), Error> {
        let done = Untranslated::connect_again(&self.tables()?, &self.cgroup_root, |tuple| {
            is_translated(self, tuple)
        })?;
        if done != Untranslated::default() {
            tracing::info!(
                sockets = done.connected,
                lost = done.lost,
                "connected UDP sockets to their Services again"
            );
        }
        self.reconnected.connected += done.connected;
        self.reconnected.lost = done.lost;
        Ok(())
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
        let before = self.known.clone();
        for connection in self.connections()?.iter().filter(|connection| connection.over) {
            self.conntrack.delete(&connection.asked)?;
        }
        let left = self.count()?;
        // An exchange that conntrack has forgotten may go on.
        if before.difference(&self.known).any(|tuple| tuple.protocol == Protocol::Udp as u8) {
            self.connect_again(Self::is_known)?;
        }
        Ok(left)
    }

    fn connections(&mut self) -> Result<Vec<Translated>, Error> {
        let tables = self.tables()?;
        let Self { conntrack, known, .. } = self;
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
