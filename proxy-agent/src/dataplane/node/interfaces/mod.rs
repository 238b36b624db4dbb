//! The node's uplinks and the devices of its pods, and the packet programs attached to them.
//!
//! At the first complete plan and at every change notification the agent lists all devices, addresses and routes, and
//! applies the difference between chosen and attached devices, so a lost notification loses nothing. A device that
//! fails becomes a problem and is tried again; the others are not affected.
//!
//! On all devices, the programs that undo a translation are attached before those that make one: an answer may leave
//! by another device than its request arrived at. A chosen device keeps its programs as long as it exists, since
//! connections through it still need them; an agent that starts chooses afresh.
//!
//! | file | concept |
//! |---|---|
//! | `choice` | which devices are uplinks, and which are pods' (pure) |
//! | `hooks` | attaching, finding again, detaching |
//! | `order` | the position of our programs among those of others |
//! | `programs` | loading our programs when a device needs them |
//! | `forwarding` | whether the kernel forwards packets that arrive there |
//! | `masquerade` | INTERFACES: the node's masquerade address at a device, and its MTU |

mod choice;
mod forwarding;
mod hooks;
mod masquerade;
mod order;
mod programs;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use aya::{
    Ebpf,
    maps::{HashMap, MapData},
};
use proxy_common::{Address, Interface};
use serde::{Deserialize, Serialize};

use self::{
    choice::{Chosen, Header, choose, still_there},
    hooks::{DIRECTIONS, Hooks},
    order::{Contests, Step},
    programs::Programs,
};
pub use self::{
    choice::{Devices, Wanted, Why},
    forwarding::not_forwarded,
    hooks::{Hooked, has_tcx, hooked},
    order::{Ahead, meaning as meaning_of_order},
};
use super::{
    kube_proxy::Foreign,
    netlink::{Network, Notifications, Routes},
};
use crate::dataplane::{
    Error,
    tables::{bitmaps::AddressFilter, exposed::Families, pinned::Tables, shared::SharedTables},
};
use crate::model::{Problem, Subject};

/// How our programs are attached to a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// As TCX links (6.6).
    Tcx,
    /// As filters in a `clsact` qdisc.
    Clsact,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        })
    }
}

/// A device with the programs, for people.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Why it was chosen.
    pub why: Why,
    /// How the programs are attached.
    pub way: Way,
    /// The node's addresses there, with which it masquerades.
    pub addresses: Vec<IpAddr>,
    /// Whether it leads to a pod, and is no uplink.
    #[serde(default)]
    pub of_pod: bool,
}

/// The attached devices, and the state for the next pass.
#[derive(Debug)]
pub struct Interfaces {
    wanted: Wanted,
    way: Way,
    hooks: Hooks,
    routes: Routes,
    table: HashMap<MapData, u32, Interface>,
    filter: AddressFilter,
    /// The addresses of the Node object.
    node: BTreeSet<IpAddr>,
    hooked: BTreeMap<u32, Device>,
    programs: Programs,
    contests: Contests,
    foreign: Foreign,
    /// Families with north-south frontends.
    served: Families,
    /// Devices that have the present programs: others may have those of another agent, or of smaller tables.
    current: BTreeSet<u32>,
    problems: Vec<Problem>,
}

impl Interfaces {
    /// The devices of the calling thread's network namespace. Attaches nothing.
    pub fn open(pin_dir: &Path, tables: SharedTables, wanted: Wanted, tcx: bool) -> Result<Self, Error> {
        let of_pods = !wanted.pods.is_nothing();
        Ok(Self {
            wanted,
            way: if tcx { Way::Tcx } else { Way::Clsact },
            hooks: Hooks::new(pin_dir)?,
            routes: Routes::new()?,
            table: Tables::interfaces(pin_dir)?,
            filter: Tables::address_filter(pin_dir)?,
            node: BTreeSet::new(),
            hooked: BTreeMap::new(),
            programs: Programs::default(),
            contests: Contests::default(),
            foreign: Foreign::open(pin_dir, tables, of_pods)?,
            served: Families::default(),
            current: BTreeSet::new(),
            problems: Vec::new(),
        })
    }

    /// Sets the addresses of the Node object; returns whether they changed.
    pub fn set_node(&mut self, addresses: &[Address]) -> bool {
        let addresses = addresses.iter().map(|address| IpAddr::from(*address)).collect();
        let changed = self.node != addresses;
        self.node = addresses;
        changed
    }

    /// The programs are others from now on: the next pass attaches them everywhere.
    pub fn renew(&mut self) {
        self.current.clear();
    }

    /// Sets the families with north-south frontends.
    pub fn set_served(&mut self, served: Families) {
        self.served = served;
    }

    /// Reads the network, loads the programs that devices need, and updates attachments and INTERFACES. Call it once
    /// everything is installed, and after changes. Returns whether other devices of pods have programs now.
    pub fn look(&mut self, ebpf: &mut Ebpf) -> bool {
        let before = self.pods_served();
        self.pass(ebpf);
        self.pods_served() != before
    }

    fn pods_served(&self) -> BTreeSet<u32> {
        self.hooked.values().filter(|device| device.of_pod).map(|device| device.index).collect()
    }

    fn pass(&mut self, ebpf: &mut Ebpf) {
        let began = Instant::now();
        let network = match Network::here() {
            Ok(network) => network,
            Err(error) => {
                self.problems = vec![problem(
                    Subject::ThisNode,
                    format!("cannot list network devices: {error}; the attached programs stay as they are"),
                )];
                return;
            }
        };
        // Answers to masqueraded packets may come to any of the node's addresses.
        network.addresses.iter().for_each(|assigned| self.filter.add(&assigned.address.into()));
        let mut problems = self.unknown_names(&network);
        let known = self.hooked.values().map(|device| (device.index, device.of_pod)).collect();
        let chosen = choose(&network, &self.wanted, &self.node, &known);
        self.programs.load_for(ebpf, &chosen);
        // The new agent's programs go first: if a packet passes two of ours, the first one translates it. A device is
        // recorded when all have theirs: until then nothing begins there, as its answer may come by any other.
        let failed = self.attach(ebpf, &chosen, &mut problems);
        self.detach_others(&chosen, &mut problems);
        let new: Vec<&Chosen> =
            chosen.iter().filter(|device| !self.hooked.contains_key(&device.index)).collect();
        // What netfilter translates goes on there. A pod that has only just come has nothing yet, and its first packet does not
        // wait.
        let is_later = !self.hooked.is_empty() && new.iter().all(|device| device.of_pod());
        if !new.is_empty() && !is_later {
            self.foreign.look();
        }
        let mut towards = Towards::default();
        let attached = || chosen.iter().filter(|device| !failed.contains(&device.index));
        for device in attached() {
            self.keep(device, &network, &mut towards, &mut problems);
        }
        for device in attached() {
            self.keep_order(ebpf, device, began, &mut problems);
        }
        if !new.is_empty() && is_later {
            self.foreign.look();
        }
        self.contests.retain(|index| self.hooked.contains_key(&index));
        let uplinks = self.hooked.values().filter(|device| !device.of_pod);
        let names = uplinks.map(|device| device.name.as_str());
        problems.extend(not_forwarded(names, self.served));
        self.problems = problems;
        let Network { links, addresses, routes, .. } = &network;
        tracing::debug!(
            links = links.len(),
            addresses = addresses.len(),
            routes = routes.len(),
            took = ?began.elapsed(),
            "read devices, addresses and routes"
        );
    }

    /// Replaces the programs at the devices that have some, whichever are wanted. What failed is tried again with the next
    /// pass.
    ///
    /// # Errors
    /// When the devices cannot be listed.
    pub fn replace_programs(&mut self, ebpf: &mut Ebpf) -> Result<(), Error> {
        let flags = |index: u32| (index, self.table.get(&index, 0).map_or(0, |found| found.flags));
        let (network, hooked) = (Network::here()?, self.hooks.devices()?);
        let present = still_there(&network, &hooked.into_iter().map(flags).collect());
        self.programs.load_for(ebpf, &present);
        let mut problems = Vec::new();
        self.attach(ebpf, &present, &mut problems);
        self.problems = problems;
        Ok(())
    }

    /// Attaches missing programs, and returns the devices where that failed.
    fn attach(&mut self, ebpf: &mut Ebpf, chosen: &[Chosen], problems: &mut Vec<Problem>) -> BTreeSet<u32> {
        let mut failed = BTreeSet::new();
        for direction in DIRECTIONS {
            for device in chosen {
                let index = device.index;
                if failed.contains(&index)
                    || (self.current.contains(&index) && self.hooks.is_attached(index, direction, self.way))
                {
                    continue;
                }
                let attached = self
                    .programs
                    .check(device)
                    .and_then(|()| self.hooks.attach(ebpf, device, direction, self.way));
                if let Err(error) = attached {
                    failed.insert(index);
                    problems.push(problem(
                        Subject::device(&device.name),
                        if device.of_pod() {
                            format!("cannot serve what this pod's sockets do not translate: {error}")
                        } else {
                            format!(
                                "cannot serve north-south traffic at this device: {error}; name other devices with \
                                 --interface"
                            )
                        },
                    ));
                }
            }
        }
        let attached = chosen.iter().map(|device| device.index).filter(|index| !failed.contains(index));
        self.current = attached.collect();
        failed
    }

    /// Detaches from devices that are gone or no longer chosen.
    fn detach_others(&mut self, chosen: &[Chosen], problems: &mut Vec<Problem>) {
        let is_chosen = |index: u32| chosen.iter().any(|device| device.index == index);
        let found = match self.hooks.devices() {
            Ok(found) => found,
            Err(error) => {
                problems.push(problem(Subject::ThisNode, error.to_string()));
                return;
            }
        };
        for index in found.into_iter().filter(|index| !is_chosen(*index)) {
            match self.hooks.detach(index) {
                Ok(_) => match self.hooked.remove(&index) {
                    Some(Device { name, of_pod: true, .. }) => {
                        tracing::debug!(device = name, "detached: the pod's device is gone");
                    }
                    Some(Device { name, .. }) => {
                        tracing::info!(device = name, "detached: the device is gone or no longer an uplink");
                    }
                    None => {}
                },
                Err(error) => {
                    let device = Subject::device(&format!("device {index}"));
                    problems.push(problem(device, error.to_string()));
                }
            }
        }
        self.hooked.retain(|index, _| is_chosen(*index));
        let stale: Vec<u32> =
            self.table.keys().filter_map(Result::ok).filter(|index| !is_chosen(*index)).collect();
        for index in stale {
            let _ = self.table.remove(&index);
        }
    }

    /// Records an attached device and its addresses.
    fn keep(
        &mut self,
        chosen: &Chosen,
        network: &Network,
        towards: &mut Towards,
        problems: &mut Vec<Problem>,
    ) {
        let of_pod = chosen.of_pod();
        let Chosen { index, name, header, why, flags } = chosen.clone();
        let mut interface = Interface { flags, ..towards.of(network, index, &self.routes) };
        if header != Header::Ethernet {
            // Such devices need a route with each packet, which only the stack provides.
            interface.longest = 0;
        }
        if self.table.get(&index, 0).ok() != Some(interface)
            && let Err(error) = self.table.insert(index, interface, 0)
        {
            problems.push(problem(
                Subject::device(&name),
                format!(
                    "cannot write the device's address to INTERFACES: {error}; masquerading may fail there"
                ),
            ));
        }
        let listed = [interface.v4, interface.v6].map(IpAddr::from);
        let addresses = listed.into_iter().filter(|ip| !ip.is_unspecified()).collect();
        let device = Device { index, name, why, way: self.way, addresses, of_pod };
        let Device { name, why, way, addresses, .. } = &device;
        match self.hooked.get(&index) {
            None if of_pod => tracing::debug!(device = name, %way, "attached: serving a pod's packets"),
            None => {
                tracing::info!(device = name, %why, %way, ?addresses, "attached: serving north-south traffic");
            }
            Some(before) if before != &device => {
                tracing::debug!(device = name, %why, ?addresses, "changed");
            }
            Some(_) => {}
        }
        self.hooked.insert(index, device);
    }

    /// Checks whether our programs are the first at a device, and moves them to the front (`order`).
    fn keep_order(&mut self, ebpf: &mut Ebpf, device: &Chosen, now: Instant, problems: &mut Vec<Problem>) {
        if self.way != Way::Tcx {
            return;
        }
        for direction in DIRECTIONS {
            let ahead = || self.hooks.ahead(device.index, &device.name, direction);
            let found = ahead().and_then(|found| {
                match self.contests.step(device.index, direction, found.is_empty(), now) {
                    Step::Keep | Step::Yield => Ok(found),
                    Step::GoFirst => {
                        self.hooks.go_first(ebpf, device, direction)?;
                        let (device, direction) = (&device.name, direction.name());
                        let before: Vec<String> = found.iter().map(ToString::to_string).collect();
                        tracing::info!(device, direction, ?before, "moved our program to the front again");
                        ahead()
                    }
                }
            });
            match found {
                Ok(found) => {
                    problems.extend(
                        order::meaning(&found)
                            .into_iter()
                            .map(|told| problem(Subject::device(&device.name), told)),
                    );
                }
                Err(error) => {
                    let message =
                        format!("cannot read the order of programs at {}: {error}", direction.name());
                    problems.push(problem(Subject::device(&device.name), message));
                }
            }
        }
    }

    /// Names without a device.
    fn unknown_names(&self, network: &Network) -> Vec<Problem> {
        let Devices::Named(names) = &self.wanted.uplinks else { return Vec::new() };
        let missing = names.iter().filter(|name| !network.links.iter().any(|link| name.matches(&link.name)));
        missing
            .map(|name| {
                problem(
                    Subject::device(name.as_str()),
                    "no such device (--interface); the agent attaches when it appears".to_owned(),
                )
            })
            .collect()
    }

    /// The uplinks with programs, in order.
    pub fn devices(&self) -> Vec<Device> {
        self.hooked.values().filter(|device| !device.of_pod).cloned().collect()
    }

    /// The devices of pods with programs, in order.
    pub fn of_pods(&self) -> Vec<Device> {
        self.hooked.values().filter(|device| device.of_pod).cloned().collect()
    }

    /// The problems with devices.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

/// The devices that lead to pods and have programs, without the agent.
pub fn pod_devices(pin_dir: &Path) -> Result<BTreeSet<u32>, Error> {
    let table = Tables::interfaces(pin_dir)?;
    let entries = table.iter().filter_map(Result::ok);
    Ok(entries.filter(|(_, found)| found.flags & Interface::INSIDE != 0).map(|(index, _)| index).collect())
}

/// What a pass has found of the ways out: pods on one bridge have the same.
#[derive(Default)]
struct Towards(BTreeMap<u32, Interface>);

impl Towards {
    /// INTERFACES' element of a device, by the routes through it or, if it is a port, through its bridge.
    fn of(&mut self, network: &Network, index: u32, routes: &Routes) -> Interface {
        let way = network.bridge_of(index).map_or(index, |bridge| bridge.index);
        let ask = |address| routes.source_towards(address, Some(way));
        *self.0.entry(way).or_insert_with(|| masquerade::interface(network, way, ask))
    }
}

/// The names of the devices that an agent without --interface would choose here, for a node without an agent.
pub fn would_choose() -> Result<Vec<String>, Error> {
    let (node, hooked) = (BTreeSet::new(), BTreeMap::new());
    let chosen = choose(&Network::here()?, &Wanted::of_uplinks(Devices::Auto), &node, &hooked);
    Ok(chosen.into_iter().map(|device| device.name).collect())
}

/// The devices by which packets to these addresses leave the node, by the longest matching route; nothing for its own
/// addresses. Ignores policy routing.
pub fn leaves_by(addresses: &BTreeSet<IpAddr>) -> Result<BTreeMap<IpAddr, String>, Error> {
    let network = Network::here()?;
    let is_own = |address: &IpAddr| network.addresses.iter().any(|own| own.address == *address);
    let leaves = |address: &IpAddr| {
        let routes = network.routes.iter().filter(|route| route.leads_to(*address));
        let route = routes.max_by_key(|route| route.length)?;
        let link = network.links.iter().find(|link| link.index == route.device)?;
        Some((*address, link.name.clone()))
    };
    Ok(addresses.iter().filter(|address| !is_own(address)).filter_map(leaves).collect())
}

/// Waits for changes of the network, in the namespace of the thread that made it.
#[derive(Debug)]
pub struct Changes(Notifications);

impl Changes {
    /// Begins to listen. Call it within a runtime, before the first pass.
    pub fn listen() -> Result<Self, Error> {
        Notifications::listen().map(Self)
    }

    /// Waits until the next pass is due. Cancel safe.
    pub async fn next(&mut self) {
        self.0.changed().await;
    }

    /// Records the end of a pass that began at this time.
    pub fn looked(&mut self, began: Instant) {
        let took: Duration = began.elapsed();
        self.0.looked(took);
    }
}

/// Detaches all our programs from devices, and returns what it removed.
pub(crate) fn cleanup(pin_dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let directory = hooks::directory(pin_dir);
    if !directory.is_dir() {
        return Ok(Vec::new());
    }
    let hooks = Hooks::new(pin_dir)?;
    let mut removed = Vec::new();
    for index in hooks.devices()? {
        removed.extend(hooks.detach(index)?);
    }
    Ok(removed)
}

fn problem(subject: Subject, message: String) -> Problem {
    Problem { subject, field: "interface".to_owned(), message }
}
