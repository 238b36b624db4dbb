//! CLIENTS: the addresses of each network namespace, against which the socket programs check a LoadBalancer IP's
//! source ranges (ST-1, ST-8).
//!
//! At `connect()` a socket usually has no address yet. Its source address depends on its network namespace alone, so
//! it is found beforehand: a pod's address, or the node's for the node's own processes. (If the process has
//! bound the socket to an address, the program checks that one.) While no Service has source ranges, CLIENTS is empty.
//!
//! | file | concept |
//! |---|---|
//! | `addresses` | which addresses a namespace's packets have |

mod addresses;

use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

use aya::maps::{self, MapData};
use proxy_common::{Address, ClientAddresses};

pub(super) use self::addresses::here;
use super::Vips;
use crate::dataplane::{Error, Tables};

/// After this many fruitless searches the cause is not only a new pod without an address.
const FRUITLESS: u32 = 3;

/// What selects one of a namespace's addresses.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Sought {
    /// A restricted LoadBalancer IP of each family.
    pub(super) vips: Vips,
    /// Addresses that are the node's.
    pub(super) nodes: Vec<Address>,
}

/// CLIENTS, and what it holds.
pub(super) struct Clients {
    map: maps::HashMap<MapData, u64, ClientAddresses>,
    known: HashMap<u64, ClientAddresses>,
    /// How many searches in a row found no new client although an unknown one had been refused.
    fruitless: u32,
}

impl Clients {
    pub(super) fn new(pin_dir: &Path) -> Result<Self, Error> {
        let map = Tables::clients(pin_dir)?;
        let mut known = HashMap::new();
        for entry in &map {
            let (cookie, found) = entry.map_err(Error::map("CLIENTS"))?;
            known.insert(cookie, found);
        }
        Ok(Self { map, known, fruitless: 0 })
    }

    /// Adds what a search found. `refused` says that an unknown client was refused since the last one. Returns what keeps
    /// clients from being found.
    pub(super) fn enter(&mut self, met: &HashMap<u64, ClientAddresses>, refused: bool) -> Option<String> {
        let before = self.known.len();
        let mut full = None;
        for (cookie, found) in met {
            if self.known.get(cookie) == Some(found) {
                continue;
            }
            match self.map.insert(cookie, found, 0) {
                Ok(()) => {
                    tracing::debug!(cookie, addresses = %found, "found a network namespace");
                    self.known.insert(*cookie, *found);
                }
                Err(error) => full = Some(format!("CLIENTS is full or cannot be written: {error}")),
            }
        }
        self.fruitless = if refused && self.known.len() == before { self.fruitless + 1 } else { 0 };
        full.or_else(|| {
            (self.fruitless >= FRUITLESS).then(|| {
                "a client is in a network namespace that the agent cannot find (set hostPID and CAP_SYS_PTRACE on its \
                 pod), or that has no address of the IP family"
                    .to_owned()
            })
        })
    }

    /// Removes all others: namespaces that are gone. Their cookies are never reused.
    pub(super) fn leave(&mut self, met: &HashSet<u64>) {
        let gone: Vec<u64> = self.known.keys().filter(|cookie| !met.contains(cookie)).copied().collect();
        for cookie in gone {
            let _ = self.map.remove(&cookie);
            self.known.remove(&cookie);
        }
    }

    /// No Service has source ranges any more.
    pub(super) fn forget(&mut self) {
        self.leave(&HashSet::new());
    }
}
