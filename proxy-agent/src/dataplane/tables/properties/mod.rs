//! Is what the maps hold what the plan says? On random clusters and random sequences of changes, with agents that
//! end in between, and with tables that are too small.
//!
//! Everything is real but the programs' clients: the maps are pinned in a directory of their own and read back
//! through the pins (`readback`).

mod crashes;
mod made_way;
mod no_memory;
mod readback;

use std::{
    cell::Cell,
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use proptest::{
    prelude::*,
    test_runner::{TestError, TestRunner},
};
use proxy_common::{Address, FrontendKey};
use sidestep_tests::{identity::Identity, pins::PinDirectory, skip};

use crate::{
    dataplane::{
        Capacity, Dataplane, FullTable, NotInstalled, Options, abi_dir, commit_growth, load, make_beside,
        tables::crash,
    },
    model::Event,
    plan::{
        Changes, Planner, ServicePlan, ServicePortId, goes_first,
        properties::cluster::{self, Change, Cluster},
    },
};

/// Cases a second that no thread gets to: new tables and restarts wait for the kernel.
const CASES: u32 = 10;
/// Nodes that are tried at the same time, because they mostly wait.
const THREADS: usize = 4;
/// So many steps must have been tried for the test to mean anything.
const ENOUGH: u32 = 100;

/// Room for all that a cluster of the generator can have.
const ROOMY: Capacity = Capacity { services: 64, frontends: 256, endpoints: 256, clients: 256, flows: 256 };

/// Something that happens on the node.
#[derive(Clone, Debug)]
enum Step {
    /// Changes reach the agent.
    Change(Vec<Change>),
    /// The agent ends, things change, and another one starts.
    Restart(Vec<Change>),
    /// The tables become longer, or shorter, or would have if the agent had not died before its write of this number; 0 for
    /// none.
    Resize(Direction, u64),
    /// The agent ends, an element of NAMES is lost, FRONTEND_LINES are shifted, and another one starts.
    LostName(prop::sample::Index),
}

/// Which way.
#[derive(Clone, Copy, Debug)]
enum Direction {
    Longer,
    /// If what they hold allows it.
    Shorter,
}

/// More writes than a growth takes at most.
const GROWTH: u64 = 800;

/// A node with its tables and, mostly, an agent.
struct Node {
    cluster: Cluster,
    options: Options,
    planner: Planner,
    /// `None` only between two agents.
    dataplane: Option<Dataplane>,
    /// What the agent says is not installed.
    named: Vec<NotInstalled>,
    /// What each Service port was when it was last in the tables whole.
    whole: BTreeMap<ServicePortId, ServicePlan>,
    /// Whose each endpoint id in its generation was, and each index: what sockets and connections may still remember.
    ids: BTreeMap<(u32, u16), readback::Owner>,
    indexes: BTreeMap<(u32, u16), ServicePortId>,
    _pins: PinDirectory,
}

impl Node {
    fn new(cluster: Cluster, capacity: Capacity) -> Self {
        let pins = PinDirectory::new(&Identity::new().to_string()).expect("bpffs");
        let options = Options::unattached(pins.path(), capacity);
        drop(load(&options).expect("the maps"));
        let mut node = Self {
            cluster,
            options,
            planner: Planner::new("n1"),
            dataplane: None,
            named: Vec::new(),
            whole: BTreeMap::new(),
            ids: BTreeMap::new(),
            indexes: BTreeMap::new(),
            _pins: pins,
        };
        node.start();
        node
    }

    /// An agent starts, and sees everything at once.
    fn start(&mut self) {
        self.dataplane = Some(Dataplane::open(&self.options).expect("the tables"));
        self.planner = Planner::new("n1");
        self.named.clear();
        self.planner.set_local_addresses(self.cluster.local_addresses());
        let mut changes = self.planner.apply(self.cluster.events().into_iter().chain([Event::Synced]));
        // In two parts, as the plan of a large cluster comes.
        let half = changes.install.len() / 2;
        let first = changes.install.drain(..half).collect();
        self.install(&Changes { more: true, install: first, ..Changes::default() });
        self.install(&changes);
    }

    fn install(&mut self, changes: &Changes) {
        if !changes.is_empty() {
            self.named = self.dataplane.as_mut().expect("an agent").apply(changes);
        }
        // A step may be several changes: what one of them installed is what the next one leaves where it does not fit.
        for plan in &changes.install {
            if !self.is_port_named(plan) {
                self.whole.insert(plan.id.clone(), plan.clone());
            }
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Change(changes) => {
                let mut events = Vec::new();
                for change in changes {
                    if let Change::LocalAddresses(_) = change {
                        let changes = self.planner.apply(std::mem::take(&mut events));
                        self.install(&changes);
                    }
                    events.extend(self.cluster.apply(change));
                    let changes = self.planner.set_local_addresses(self.cluster.local_addresses());
                    self.install(&changes);
                }
                let changes = self.planner.apply(events);
                self.install(&changes);
            }
            Step::Restart(changes) => {
                self.dataplane = None;
                for change in changes {
                    self.cluster.apply(change);
                }
                self.start();
            }
            Step::Resize(direction, death) => drop(self.resize(direction, death)),
            Step::LostName(which) => {
                self.dataplane = None;
                readback::lose_name(&self.options.pin_dir, |count| which.index(count));
                readback::shift_lines(&self.options.pin_dir);
                self.start();
            }
        }
    }

    /// Whether the agent lived through it. If not, the next one has started.
    fn resize(&mut self, direction: Direction, death: u64) -> bool {
        let dataplane = self.dataplane.as_mut().expect("an agent");
        let four = |length: u32| match direction {
            Direction::Longer => (length * 4).min(1024),
            Direction::Shorter => (length / 4).max(4),
        };
        let before = dataplane.capacity();
        let Capacity { services, frontends, endpoints, clients, flows } = before;
        let size = Capacity {
            services: four(services),
            frontends: four(frontends),
            endpoints: four(endpoints),
            clients: four(clients),
            flows,
        };
        let is_shorter = matches!(direction, Direction::Shorter);
        let lived = crash::before_write(death, || {
            if is_shorter {
                dataplane.withdraw_to(&size);
                if !size.holds(dataplane.extent()) {
                    return;
                }
            }
            drop(make_beside(&self.options, &size).expect("other tables"));
            let resized = dataplane.resize().expect("a copy");
            commit_growth(&self.options.pin_dir).expect("in place");
            dataplane.follow(resized).expect("the other tables");
        })
        .is_some();
        if lived {
            self.named = dataplane.not_installed();
        } else {
            self.dataplane = None;
            self.start();
        }
        let dir = abi_dir(&self.options.pin_dir);
        let left = fs::read_dir(dir).expect("pins").map(|entry| entry.expect("an entry").file_name());
        let left: Vec<_> = left.filter(|name| name.to_string_lossy().starts_with("next-")).collect();
        assert!(left.is_empty(), "{left:?}");
        self.options.capacity = self.dataplane.as_ref().expect("an agent").capacity();
        assert!([before, size].contains(&self.options.capacity), "{:?}", self.options.capacity);
        lived
    }

    /// What is wrong with the tables; nothing, mostly.
    fn faults(&mut self) -> Vec<String> {
        let plan = self.planner.full();
        let fits = self.has_room_for(&plan);
        let mut complete = true;
        let first = self.named.iter().find(|named| Self::should_have_room(named));
        let readback::Found { mut services, mut addresses, ids, indexes, mut faults } =
            readback::read(&self.options.pin_dir);
        faults.extend(used_again(&mut self.ids, ids));
        faults.extend(used_again(&mut self.indexes, indexes));
        let other =
            services.iter().find(|(id, found)| !goes_first(&id.service) && !found.frontends.is_empty());
        if let (Some(first), Some((other, _))) = (first, other) {
            faults.push(format!("{first:?} is not there, and {other} is"));
        }
        for plan in plan.install {
            let found = services.remove(&plan.id);
            if found.as_ref() != Some(&plan) {
                complete = false;
                faults.extend(self.fault(&plan, found.as_ref()));
            }
            if found.as_ref().map(but_frontends) == Some(but_frontends(&plan)) {
                self.whole.insert(plan.id.clone(), plan);
            }
        }
        faults.extend(services.into_keys().map(|id| format!("{id} is in no plan")));
        for (address, bits) in plan.addresses {
            let found = addresses.remove(&address).unwrap_or_default();
            complete &= found == bits;
            if found != bits && !self.is_address_named(&address) {
                faults.push(format!("{address} has {found:?} and not {bits:?}, and that is not named"));
            }
        }
        let strays =
            addresses.into_iter().map(|(address, bits)| format!("{address}: {bits:?} is in no plan"));
        faults.extend(strays);
        if (complete || fits) && !self.named.is_empty() {
            faults.push(format!("refused without need (complete: {complete}): {:?}", self.named));
        }
        faults
    }

    /// Whether this has room if others make way. There may never be slots enough in a row.
    fn should_have_room(named: &NotInstalled) -> bool {
        match named {
            NotInstalled::ServicePort { id, full } => {
                goes_first(&id.service) && *full != FullTable::Endpoints
            }
            NotInstalled::Frontend { service, .. } => goes_first(service),
            _ => false,
        }
    }

    /// Whether everything fits for sure: tables of one kind fill up to the last element, slots must be in a row.
    fn has_room_for(&self, plan: &Changes) -> bool {
        let Capacity { services, frontends, endpoints, .. } = self.options.capacity;
        let keys: usize = plan.install.iter().map(|plan| plan.frontends.len()).sum();
        // Index 0 stands for nothing.
        plan.install.len() < services as usize
            && keys.max(plan.addresses.len()) <= frontends as usize
            && endpoints >= ROOMY.endpoints
    }

    /// What is wrong with a Service port that is not as planned, and not excused by a table that is full.
    fn fault(&self, plan: &ServicePlan, found: Option<&ServicePlan>) -> Option<String> {
        let differs = |why: &str| Some(format!("{} {why}:\n  {found:?}\nplan\n  {plan:?}", plan.id));
        if let Some(found) = found
            && but_frontends(found) == but_frontends(plan)
        {
            // It is there; each frontend that is not has been named.
            let missing = plan
                .frontends
                .iter()
                .find(|entry| !found.frontends.contains(entry) && !self.is_frontend_named(plan, &entry.0));
            let strange = found.frontends.iter().find(|entry| !plan.frontends.contains(entry));
            let (key, _) = missing.or(strange)?;
            return differs(&format!("differs in {key}, which is not named"));
        }
        if !self.is_port_named(plan) {
            return differs("is not as planned, and that is not named");
        }
        // It stays what it was; what it lost went to others.
        match (found, self.whole.get(&plan.id)) {
            (Some(found), Some(whole)) if but_frontends(found) == but_frontends(whole) => None,
            (None, _) => None,
            _ => differs("is neither what it was nor what it should be"),
        }
    }

    fn is_frontend_named(&self, plan: &ServicePlan, key: &FrontendKey) -> bool {
        self.named.iter().any(|missing| {
            matches!(missing, NotInstalled::Frontend { service, frontend, .. }
                if *service == plan.id.service && frontend == key)
        })
    }

    fn is_port_named(&self, plan: &ServicePlan) -> bool {
        self.named.iter().any(|missing| {
            matches!(missing, NotInstalled::ServicePort { id, .. }
                if id.service == plan.id.service && id.port == plan.id.port)
        })
    }

    fn is_address_named(&self, wanted: &Address) -> bool {
        self.named
            .iter()
            .any(|missing| matches!(missing, NotInstalled::Address { address, .. } if address == wanted))
    }
}

/// What somebody else had before, in the same generation.
fn used_again<T: PartialEq + std::fmt::Debug>(
    known: &mut BTreeMap<(u32, u16), T>,
    found: BTreeMap<(u32, u16), T>,
) -> Vec<String> {
    let mut faults = Vec::new();
    for (place, owner) in found {
        let before = known.get(&place);
        if before.is_some_and(|before| *before != owner) {
            faults.push(format!("{place:?} was {before:?}'s, and is {owner:?}'s"));
        }
        known.insert(place, owner);
    }
    faults
}

fn but_frontends(plan: &ServicePlan) -> ServicePlan {
    ServicePlan { frontends: Vec::new(), ..plan.clone() }
}

fn step() -> impl Strategy<Value = Step> {
    let changes = || prop::collection::vec(cluster::change(), 1..4);
    prop_oneof![
        20 => changes().prop_map(Step::Change),
        1 => changes().prop_map(Step::Restart),
        1 => any::<prop::sample::Index>().prop_map(Step::LostName),
        1 => resize(),
        1 => resize(),
    ]
}

fn resize() -> impl Strategy<Value = Step> {
    let directions = prop_oneof![Just(Direction::Longer), Just(Direction::Shorter)];
    (directions, prop_oneof![1 => Just(0), 1 => 1..GROWTH])
        .prop_map(|(direction, death)| Step::Resize(direction, death))
}

/// Room for everything, mostly; else too little of one thing or another.
fn capacity() -> impl Strategy<Value = Capacity> {
    prop_oneof![
        2 => Just(ROOMY),
        1 => Just(Capacity { services: 4, ..ROOMY }),
        1 => Just(Capacity { frontends: 6, ..ROOMY }),
        2 => Just(Capacity { endpoints: 8, ..ROOMY }),
    ]
}

/// Tries cases until `limit`, and says how many steps that were; panics with the shortest case that fails.
fn try_cases(seconds: u32) -> u32 {
    let limit = Instant::now() + Duration::from_secs(seconds.into());
    let steps_tried = Cell::new(0);
    let config =
        ProptestConfig { cases: CASES * seconds, failure_persistence: None, ..ProptestConfig::default() };
    let strategy = (capacity(), cluster::cluster(), prop::collection::vec(step(), 1..60));
    let result = TestRunner::new(config).run(&strategy, |(capacity, cluster, steps)| {
        if Instant::now() > limit {
            return Ok(());
        }
        let mut node = Node::new(cluster, capacity);
        prop_assert_eq!(node.faults(), [""; 0], "at the start");
        for (number, step) in steps.into_iter().enumerate() {
            node.step(step.clone());
            steps_tried.set(steps_tried.get() + 1);
            prop_assert_eq!(node.faults(), [""; 0], "after step {}, {:?}", number, step);
        }
        Ok(())
    });
    if let Err(TestError::Fail(reason, case)) = result {
        panic!("{reason}\nin {case:#?}");
    }
    steps_tried.get()
}

/// After every step, also over restarts, the maps hold the plan; where they are too small, what they lack is named
/// and the rest is whole. `SIDESTEP_STRESS_SECONDS` says for how long.
#[test]
fn the_maps_hold_what_the_plan_says() {
    if let Some(reason) = skip::missing() {
        skip!("{reason}");
    }
    let seconds = std::env::var("SIDESTEP_STRESS_SECONDS").map_or(8, |text| text.parse().expect("seconds"));
    let steps: u32 = std::thread::scope(|scope| {
        let threads = [(); THREADS].map(|()| scope.spawn(move || try_cases(seconds)));
        threads
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .iter()
            .sum()
    });
    println!("{steps} steps in {seconds} s");
    assert!(steps >= ENOUGH, "only {steps} steps in {seconds} s");
}
