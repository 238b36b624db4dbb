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
//! | `attaching` | which of them get programs now, and in which order |
//! | `hooks` | attaching, finding again, detaching |
//! | `standing`, `order` | the position of our programs among those of others |
//! | `programs` | loading our programs when a device needs them |
//! | `forwarding` | whether the kernel forwards packets that arrive there |
//! | `questions` | what commands ask, without the agent |
//! | `masquerade` | INTERFACES: the node's masquerade address at a device, and its MTU |

mod attaching;
mod choice;
mod device;
mod forwarding;
mod hooks;
mod masquerade;
mod order;
mod programs;
mod questions;
mod standing;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use aya::{
    Ebpf,
    maps::{HashMap, MapData},
};
use proxy_common::{Address, Interface};

use self::{
    choice::{Chosen, Header, choose},
    hooks::Hooks,
    masquerade::Towards,
    order::Contests,
    programs::Programs,
};
pub use self::{
    choice::{Devices, Wanted, Why},
    device::{Device, Way},
    forwarding::not_forwarded,
    hooks::{Hooked, has_tcx, hooked},
    order::{Ahead, meaning as meaning_of_order},
    questions::{leaves_by, pod_devices, would_choose},
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
    /// Devices that have the present programs, and what for: others may have those of another agent, or of smaller tables.
    current: BTreeMap<u32, (Header, u32)>,
    /// Devices of pods with which everything was right at the last full look.
    settled: BTreeSet<u32>,
    problems: Vec<Problem>,
    /// Programs of others before ours, by device.
    out_of_order: BTreeMap<u32, Vec<Problem>>,
    /// Whether there was a look for news since the last full one.
    is_unchecked: bool,
    /// How long programs were attached to the devices of new pods since somebody asked.
    welcomed: Duration,
}

/// How much a pass looks at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Depth {
    /// All but settled devices: a pod's first packet is on its way, however many other pods there are.
    News,
    Everything,
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
            current: BTreeMap::new(),
            settled: BTreeSet::new(),
            problems: Vec::new(),
            out_of_order: BTreeMap::new(),
            is_unchecked: false,
            welcomed: Duration::ZERO,
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
        self.settled.clear();
    }

    /// Sets the families with north-south frontends.
    pub fn set_served(&mut self, served: Families) {
        self.served = served;
    }

    /// Reads the network, loads the programs that devices need, and updates attachments and INTERFACES. Call it once
    /// everything is installed, and now and then. Returns whether other devices of pods have programs now.
    pub fn look(&mut self, ebpf: &mut Ebpf) -> bool {
        self.look_at(ebpf, Depth::Everything)
    }

    /// The same after a change, as far as it cannot wait: a full look has to follow soon ([`Interfaces::is_unchecked`]).
    pub fn look_for_news(&mut self, ebpf: &mut Ebpf) -> bool {
        self.look_at(ebpf, Depth::News)
    }

    /// Whether a full look is due.
    pub const fn is_unchecked(&self) -> bool {
        self.is_unchecked
    }

    /// How long programs were attached to the devices of new pods since the last call: mostly the kernel's waiting, and no more
    /// often than pods come.
    pub fn take_welcomed(&mut self) -> Duration {
        std::mem::take(&mut self.welcomed)
    }

    fn look_at(&mut self, ebpf: &mut Ebpf, depth: Depth) -> bool {
        let before = self.pods_served();
        self.pass(ebpf, depth);
        self.is_unchecked = depth == Depth::News;
        self.pods_served() != before
    }

    fn pods_served(&self) -> BTreeSet<u32> {
        self.hooked.values().filter(|device| device.of_pod).map(|device| device.index).collect()
    }

    fn pass(&mut self, ebpf: &mut Ebpf, depth: Depth) {
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
        self.forget_renumbered(&network);
        let known: BTreeMap<u32, bool> =
            self.hooked.values().map(|device| (device.index, device.of_pod)).collect();
        let chosen = choose(&network, &self.wanted, &self.node, &known);
        self.programs.load_for(ebpf, &chosen);
        let mut towards = Towards::default();
        // Where all others serve already, a pod that has only just come waits for nobody.
        let is_new = |device: &&Chosen| !known.contains_key(&device.index);
        let all_serve = !known.is_empty()
            && chosen.iter().filter(|device| !device.of_pod()).all(|device| !is_new(&device));
        let (newcomers, others): (Vec<&Chosen>, Vec<&Chosen>) =
            chosen.iter().partition(|device| device.of_pod() && is_new(device) && all_serve);
        for device in &newcomers {
            self.welcome(ebpf, device, (&network, &mut towards), &mut problems);
        }
        let is_settled = |device: &&Chosen| {
            depth == Depth::News && device.of_pod() && self.settled.contains(&device.index)
        };
        let others: Vec<&Chosen> = others.into_iter().filter(|device| !is_settled(device)).collect();
        // The new agent's programs go first: if a packet passes two of ours, the first one translates it. These are
        // recorded when all have theirs: until then nothing begins there, as its answer may come by any other.
        let failed = self.attach(ebpf, &others, &mut problems);
        self.detach_others(&chosen, &mut problems);
        // What netfilter translates there goes on.
        if !newcomers.is_empty() || others.iter().any(is_new) {
            self.foreign.look();
        }
        let mut settled = BTreeSet::new();
        for device in others.iter().filter(|device| !failed.contains(&device.index)) {
            let is_kept = self.keep(device, (&network, &mut towards), &mut problems);
            self.keep_order(ebpf, device, began);
            if is_kept && device.of_pod() {
                settled.insert(device.index);
            }
        }
        if depth == Depth::Everything {
            self.settled = settled;
        }
        self.out_of_order.retain(|index, _| self.hooked.contains_key(index));
        problems.extend(self.out_of_order.values().flatten().cloned());
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

    /// The kernel gives a number that is free to the next device, also between two passes.
    fn forget_renumbered(&mut self, network: &Network) {
        for link in &network.links {
            if let Some(device) = self.hooked.get(&link.index)
                && device.name != link.name
            {
                self.current.remove(&link.index);
                self.settled.remove(&link.index);
                if device.of_pod {
                    self.hooked.remove(&link.index);
                }
            }
        }
    }

    /// Records an attached device and its addresses. Returns whether INTERFACES says so.
    fn keep(
        &mut self,
        chosen: &Chosen,
        (network, towards): (&Network, &mut Towards),
        problems: &mut Vec<Problem>,
    ) -> bool {
        let of_pod = chosen.of_pod();
        let Chosen { index, name, header, why, flags } = chosen.clone();
        let mut interface = Interface { flags, ..towards.of(network, index, &self.routes) };
        if header != Header::Ethernet {
            // Such devices need a route with each packet, which only the stack provides.
            interface.longest = 0;
        }
        let mut is_written = true;
        if self.table.get(&index, 0).ok() != Some(interface)
            && let Err(error) = self.table.insert(index, interface, 0)
        {
            is_written = false;
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
        is_written
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

/// Waits for changes of the network, in the namespace of the thread that made it.
#[derive(Debug)]
pub struct Changes(Notifications);

impl Changes {
    /// Begins to listen. Call it within a runtime, before the first pass.
    pub fn listen() -> Result<Self, Error> {
        Notifications::listen().map(Self)
    }

    /// Waits until the next pass is due, and returns whether there was news. Cancel safe.
    pub async fn next(&mut self) -> bool {
        self.0.changed().await
    }

    /// Records the end of a pass that took this long.
    pub fn looked(&mut self, took: Duration) {
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
