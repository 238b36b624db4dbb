//! BYPASSED: the network namespaces that were looked at, and those of them whose sockets the socket programs pass by (PO-25,
//! PO-26).
//!
//! A socket program gives a process an endpoint in place of the Service's address. A namespace whose own rules or routes
//! are about that address must see it on the wire; its packets are translated at the node's end of the pod's wire instead,
//! so only namespaces whose packets come out there are passed by.
//!
//! | file | concept |
//! |---|---|
//! | `sight` | what there is to see in a namespace |
//! | `pods` | which namespaces are those of Pods that say what they want |
//! | `verdict` | which namespaces are passed by, and why (pure) |

mod pods;
mod sight;
mod verdict;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::File,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use aya::maps::{self, MapData};
use proxy_common::{Interface, PassedBy, SocketWish};
use serde::{Deserialize, Serialize};

use self::{
    sight::{Node, Rulers, Sight},
    verdict::{Seen, verdicts},
};
use super::Rules;
use crate::dataplane::{Error, Tables, node::netlink::Routes};

/// A network namespace that is passed by.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PassedNamespace {
    /// Its cookie, which is its key in BYPASSED.
    pub cookie: u64,
    /// Where it was found, such as `/run/netns/NAME` or `/proc/PID/ns/net`.
    pub place: PathBuf,
    /// Why.
    pub why: PassedBy,
}

/// Why a namespace is passed by; nothing if its sockets are served.
type Verdict = Option<PassedBy>;

/// Those that are passed by, for the report.
pub(super) type Told = Arc<Mutex<Vec<PassedNamespace>>>;

/// BYPASSED, and what was decided last.
pub(super) struct Bypass {
    map: maps::HashMap<MapData, u64, u64>,
    interfaces: maps::HashMap<MapData, u32, Interface>,
    /// What BYPASSED holds.
    known: BTreeMap<u64, Verdict>,
    rulers: Rulers,
    told: Told,
}

/// The namespaces of one search.
#[derive(Default)]
pub(super) struct Search {
    /// The node's devices that serve what comes out of pods.
    devices: BTreeSet<u32>,
    all: BTreeMap<u64, Met>,
}

/// A namespace of a search.
struct Met {
    place: PathBuf,
    /// The namespace's, which Pods are found by.
    inode: u64,
    /// Nothing if it could not be looked at: its verdict stays.
    sight: Option<Sight>,
    /// Kept open if other namespaces may be behind it, or it behind others.
    open: Option<File>,
}

impl Bypass {
    pub(super) fn new(pin_dir: &Path, told: Told) -> Result<Self, Error> {
        let map = Tables::bypassed(pin_dir)?;
        let mut known = BTreeMap::new();
        for entry in &map {
            let (cookie, number) = entry.map_err(Error::map("BYPASSED"))?;
            known.insert(cookie, PassedBy::from_number(number));
        }
        let interfaces = Tables::interfaces(pin_dir)?;
        Ok(Self { map, interfaces, known, rulers: Rulers::new(), told })
    }

    /// Begins a search.
    pub(super) fn begin(&self) -> Search {
        let devices = self.interfaces.iter().filter_map(Result::ok);
        let of_pods = devices.filter(|(_, device)| device.flags & Interface::INSIDE != 0);
        Search { devices: of_pods.map(|(index, _)| index).collect(), all: BTreeMap::new() }
    }

    /// Looks at the namespace that the calling thread has entered. `node` is the node's own.
    pub(super) fn look(
        &mut self,
        search: &mut Search,
        (cookie, namespace, place): (u64, &File, &Path),
        (node, routes): (&File, &Routes),
        rules: &Rules,
    ) {
        let node = Node { namespace: node, devices: &search.devices };
        let sight = Sight::here(&self.rulers, &node, routes, rules);
        if let Err(error) = &sight {
            tracing::debug!(%error, place = %place.display(), "cannot look at a namespace's wires, rules and routes");
        }
        let sight = sight.ok();
        let open = sight.as_ref().is_some_and(|sight| !sight.elsewhere.is_empty());
        let open = if open { namespace.try_clone().ok() } else { None };
        let inode = namespace.metadata().map_or(0, |metadata| metadata.ino());
        search.all.insert(cookie, Met { place: place.to_owned(), inode, sight, open });
    }

    /// Decides, and makes BYPASSED so. `whole` says whether every namespace was met; those that were not stay otherwise.
    /// The calling thread enters namespaces. Returns what could not be written.
    pub(super) fn decide(&mut self, search: &Search, rules: &Rules, whole: bool) -> Option<String> {
        let behind = search.behind();
        let wishes = rules.pods.as_ref().map(|pods| pods::namespaces(pods));
        let seen = search.all.iter().filter_map(|(cookie, met)| {
            let sight = met.sight.as_ref()?;
            let before = self.known.get(cookie).copied().flatten();
            Some((
                *cookie,
                Seen {
                    of_node: sight.of_node,
                    // What could not be read is as it was.
                    redirects: sight.redirects.unwrap_or(before == Some(PassedBy::Redirects)),
                    routes: sight.routes,
                    behind: behind.get(cookie).cloned().unwrap_or_default(),
                    wish: match &wishes {
                        Some(wishes) => wishes.get(&met.inode).copied(),
                        None => before.filter(|why| why.is_wish()).map(SocketWish::PassBy),
                    },
                },
            ))
        });
        let seen: BTreeMap<u64, Seen> = seen.collect();
        let passed = verdicts(&seen);
        let mut wanted: BTreeMap<u64, Verdict> =
            seen.keys().map(|cookie| (*cookie, passed.get(cookie).copied())).collect();
        for (cookie, verdict) in &self.known {
            let is_open = search.all.get(cookie).map_or(!whole, |met| met.sight.is_none());
            if is_open {
                wanted.insert(*cookie, *verdict);
            }
        }
        let full = self.write(&wanted, search);
        let told = self.known.iter().filter_map(|(cookie, verdict)| {
            Some(PassedNamespace { cookie: *cookie, place: search.place(*cookie), why: (*verdict)? })
        });
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = told.collect();
        full
    }

    /// Passes nobody by.
    pub(super) fn forget(&mut self) {
        self.decide(&Search::default(), &Rules::default(), true);
    }

    fn write(&mut self, wanted: &BTreeMap<u64, Verdict>, search: &Search) -> Option<String> {
        let gone: Vec<u64> =
            self.known.keys().filter(|cookie| !wanted.contains_key(cookie)).copied().collect();
        for cookie in gone {
            let _ = self.map.remove(&cookie);
            self.known.remove(&cookie);
        }
        let mut full = None;
        for (cookie, verdict) in wanted {
            if self.known.get(cookie) == Some(verdict) {
                continue;
            }
            match self.map.insert(cookie, verdict.map_or(0, |why| why as u64), 0) {
                Ok(()) => {
                    let before = self.known.insert(*cookie, *verdict).flatten();
                    tell(&search.place(*cookie), before, *verdict);
                }
                Err(error) => full = Some(format!("BYPASSED is full or cannot be written: {error}")),
            }
        }
        full
    }
}

fn tell(place: &Path, before: Verdict, now: Verdict) {
    let place = place.display();
    match now {
        Some(why) => tracing::info!(
            %place, why = why.name(), "the socket programs pass a network namespace by: {}", why.explanation()
        ),
        None if before.is_some() => {
            tracing::info!(%place, "the socket programs serve a network namespace again");
        }
        None => {}
    }
}

impl Search {
    /// Notes the node's own namespace, whose sockets are served.
    pub(super) fn knows(&mut self, cookie: u64, place: &Path) {
        let sight = Some(Sight::default());
        self.all.insert(cookie, Met { place: place.to_owned(), inode: 0, sight, open: None });
    }

    /// Where a namespace was found.
    fn place(&self, cookie: u64) -> PathBuf {
        self.all.get(&cookie).map(|met| met.place.clone()).unwrap_or_default()
    }

    /// Behind which others each namespace is that does not lead to the node itself. Few lead anywhere else.
    fn behind(&self) -> HashMap<u64, Vec<u64>> {
        let open = || {
            let all = self.all.iter().filter_map(|(cookie, met)| Some((cookie, met.open.as_ref()?, met)));
            all.filter_map(|(cookie, open, met)| Some((*cookie, open, met.sight.as_ref()?)))
        };
        // What leads to one other namespace alone has nothing behind it.
        let outer = || open().filter(|(.., sight)| sight.of_node || sight.elsewhere.len() > 1);
        let mut found = HashMap::new();
        for (cookie, namespace, sight) in open().filter(|(.., sight)| !sight.of_node) {
            let others = outer().filter(|(other, ..)| *other != cookie).map(|(other, open, _)| (other, open));
            match sight::which(namespace, &sight.elsewhere, others) {
                Ok(behind) => drop(found.insert(cookie, behind)),
                Err(error) => tracing::debug!(%error, cookie, "cannot see where a namespace's wires lead"),
            }
        }
        found
    }
}
