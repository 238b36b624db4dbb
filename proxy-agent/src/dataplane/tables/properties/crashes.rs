//! An agent that dies between any two of its writes: no client gets anything but what it got before the change or gets
//! after it, and the next agent makes the tables what the plan says. It may die, too, and the one after it does so.
//!
//! From one cluster to another and back again, dying one write later each time, until a change gets through.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use proptest::{
    prelude::*,
    test_runner::{TestError, TestRunner},
};
use proxy_common::{
    Address, AddressBits, Client, Decision, Forward, FrontendKey, Port, Protocol, Reason, Scope,
    Tables as Lookups, select,
};
use sidestep_tests::skip;

use super::{Direction, GROWTH, Node, ROOMY, THREADS};
use crate::{
    dataplane::{
        Dataplane,
        tables::{crash, pinned::Tables},
    },
    model::{Event, ObjectKey},
    plan::{
        ServicePortId,
        properties::cluster::{self, APort, AService, ASlice, AnAffinity, AnEndpoint, Change, Cluster},
    },
};

/// So many deaths must have been died for the test to mean anything.
const ENOUGH: u32 = 40;
/// How many random numbers stand for all: more than a Service has endpoints.
const DRAWS: u32 = 64;

/// A client, which tells where it is.
#[derive(Clone, Copy, Debug)]
struct From {
    scope: Scope,
    source: IpAddr,
}

impl Client for From {
    fn identity(&self) -> Address {
        self.source.into()
    }

    fn is_node(&self) -> bool {
        false
    }

    fn scope(&self) -> Scope {
        self.scope
    }

    fn source(&self, _: &impl Lookups, _: &Address) -> Option<Address> {
        Some(self.source.into())
    }
}

const CLIENTS: [From; 3] = [
    From { scope: Scope::Inside, source: IpAddr::V4(std::net::Ipv4Addr::new(10, 1, 2, 3)) },
    From { scope: Scope::Outside, source: IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 1, 2)) },
    From { scope: Scope::Outside, source: IpAddr::V6(std::net::Ipv6Addr::LOCALHOST) },
];

/// What can become of a connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Fate {
    NotService,
    Refused(Reason),
    Led(Address, Port),
}

/// What can become of connections to each address, by client.
type Fates = BTreeMap<(FrontendKey, usize), BTreeSet<Fate>>;

impl Node {
    /// Where clients may go: every frontend of the plan, and an unknown port of each of their addresses.
    fn destinations(&mut self) -> BTreeSet<FrontendKey> {
        let local = self.cluster.local_addresses();
        let addresses = |key: &FrontendKey| -> Vec<Address> {
            if key.any_address == 0 {
                return vec![key.address];
            }
            let local = local.iter().copied().map(Address::from);
            local.filter(|address| address.is_v4() == key.address.is_v4()).collect()
        };
        let mut all = BTreeSet::new();
        for (key, _) in self.planner.full().install.iter().flat_map(|plan| &plan.frontends) {
            for address in addresses(key) {
                all.insert(FrontendKey::new(address, key.port, key.protocol));
                all.insert(FrontendKey::new(address, Port::new(9), Protocol::Tcp as u8));
            }
        }
        all
    }

    /// What clients get now.
    fn fates(&self, destinations: &BTreeSet<FrontendKey>) -> Fates {
        let tables = Tables::open(&self.options.pin_dir).expect("the tables");
        let mut fates = Fates::new();
        for (key, (number, client)) in
            destinations.iter().flat_map(|key| CLIENTS.iter().enumerate().map(move |client| (key, client)))
        {
            let draws = (0..DRAWS).map(|draw| draw * (u32::MAX / DRAWS));
            let fate = |draw| match select(&tables, key, client, || 0, || draw) {
                Decision::NotService => Fate::NotService,
                Decision::Refuse { reason, service: _ } => Fate::Refused(reason),
                Decision::Forward(Forward { endpoint, .. }) => Fate::Led(endpoint.address, endpoint.port),
            };
            fates.insert((*key, number), draws.map(fate).collect());
        }
        fates
    }

    /// What each destination is: of which kind if it is a frontend, and whether its address is the node's.
    fn roles(&self, destinations: &BTreeSet<FrontendKey>) -> BTreeMap<FrontendKey, (Option<u8>, bool)> {
        let tables = Tables::open(&self.options.pin_dir).expect("the tables");
        let kind = |key| tables.frontend(key).map(|found| found.kind());
        let is_node = |key: &FrontendKey| tables.address(&key.address).has(AddressBits::NODE);
        destinations.iter().map(|key| (*key, (kind(key), is_node(key)))).collect()
    }

    /// Slots that two Service ports hold.
    fn shared_slots(&self) -> Vec<String> {
        let mut holders: BTreeMap<u32, ServicePortId> = BTreeMap::new();
        let installed = self.dataplane.iter().flat_map(|dataplane| dataplane.installed().iter());
        let slots = installed.flat_map(|(id, found)| found.block.map(move |slot| (slot, id.clone())));
        slots
            .filter_map(|(slot, id)| {
                let other = holders.insert(slot, id.clone())?;
                Some(format!("slot {slot} is {id}'s and {other}'s"))
            })
            .collect()
    }

    /// Changes the cluster; gives the events that say so.
    pub(super) fn turn_into(&mut self, other: &Cluster) -> Vec<Event> {
        let key = |event: &Event| match event {
            Event::Upsert(object) => Some(object.key()),
            _ => None,
        };
        let now: BTreeSet<ObjectKey> = other.events().iter().filter_map(key).collect();
        let gone =
            self.cluster.events().iter().filter_map(key).filter(|key| !now.contains(key)).collect::<Vec<_>>();
        self.cluster = other.clone();
        gone.into_iter().map(Event::Delete).chain(other.events()).collect()
    }
}

/// What is neither what it was nor what it becomes.
fn torn(seen: &Fates, before: &Fates, after: &Fates) -> Vec<String> {
    let (nobodys, refused) = (Fate::NotService, Fate::Refused(Reason::UnknownPort));
    let is_torn = |(place, fates): &(&(FrontendKey, usize), &BTreeSet<Fate>)| {
        let (old, new) = (&before[place], &after[place]);
        // A ClusterIP comes and goes apart from its frontends: what is nobody's or refused in the end may be the other
        // for a moment.
        let on_its_way = [(nobodys, refused), (refused, nobodys)]
            .iter()
            .any(|(seen, end)| **fates == BTreeSet::from([*seen]) && *new == BTreeSet::from([*end]));
        *fates != old && *fates != new && !on_its_way
    };
    let torn = seen.iter().filter(is_torn);
    torn.map(|(place, fates)| {
        let (key, client) = place;
        format!(
            "{key} for {:?}: {fates:?}, neither {:?} nor {:?}",
            CLIENTS[*client], before[place], after[place]
        )
    })
    .collect()
}

/// One change with a crash before its write of this number, and perhaps one of the next agent. Gives the faults, and
/// whether anybody died.
fn crash_in_change(node: &mut Node, to: &Cluster, number: u64, next: Option<u64>) -> (Vec<String>, bool) {
    let mut destinations = node.destinations();
    let (mut seen, mut shared, from) = (Vec::new(), Vec::new(), node.cluster.clone());
    let events = node.turn_into(to);
    let changes = node.planner.apply(events);
    destinations.extend(node.destinations());
    let (before, roles_before) = (node.fates(&destinations), node.roles(&destinations));
    let died = crash::before_write(number, || node.install(&changes)).is_none();
    seen.push(("the crash", node.fates(&destinations)));
    if died {
        node.dataplane = None;
        if let Some(next) = next {
            let died_again = crash::before_write(next, || node.start()).is_none();
            node.dataplane = None;
            seen.push(if died_again {
                ("the second crash", node.fates(&destinations))
            } else {
                ("a start", node.fates(&destinations))
            });
        }
        // What it adopts, before its first plan mends it.
        node.dataplane = Some(Dataplane::open(&node.options).expect("the tables"));
        shared = node.shared_slots();
        node.dataplane = None;
        node.start();
    }
    let mut faults = node.faults();
    faults.extend(shared);
    let after = node.fates(&destinations);
    let roles_after = node.roles(&destinations);
    // An address becomes the node's apart from the NodePorts; a frontend becomes one of another kind apart from its Service.
    let plays_another_role = |key: &FrontendKey| {
        let ((kind_before, node_before), (kind_after, node_after)) = (roles_before[key], roles_after[key]);
        node_before != node_after
            || kind_before.zip(kind_after).is_some_and(|(before, after)| before != after)
    };
    for (when, mut seen) in seen {
        seen.retain(|(key, _), _| !plays_another_role(key));
        faults.extend(torn(&seen, &before, &after).into_iter().map(|fault| format!("after {when}: {fault}")));
    }
    if !faults.is_empty() {
        faults.push(format!("at write {number}, then {next:?}, from {from:#?} to {to:#?}"));
    }
    (faults, died)
}

/// From one cluster to another and back, dying one write later each time, until a change gets through.
fn crash_at_each_write(from: &Cluster, to: &Cluster) -> Vec<String> {
    let mut node = Node::new(from.clone(), ROOMY);
    let mut faults = Vec::new();
    for number in 1.. {
        let deaths = [to, from].map(|to| {
            let (found, died) = crash_in_change(&mut node, to, number, None);
            faults.extend(found);
            died
        });
        if deaths == [false; 2] {
            break;
        }
    }
    faults
}

/// A load balancer's Service at this port, with its IP or without, and these source ranges.
fn service(port: u16, vip: bool, ranges: &[&'static str]) -> AService {
    AService {
        created: 1,
        kind: "LoadBalancer",
        cluster_ips: vec!["10.0.0.1"],
        external_ips: Vec::new(),
        ingress: if vip { vec![("192.0.2.2", Some("VIP"))] } else { Vec::new() },
        ports: vec![APort { name: "", protocol: "TCP", port, node_port: 0 }],
        internal: "Cluster",
        external: "Cluster",
        affinity: AnAffinity::None,
        ranges: ranges.to_vec(),
    }
}

/// Two of them, each with an endpoint; the first one's is at this address.
fn two_services(first: AService, host: u8, second: AService) -> Cluster {
    let slice = |service, host| ASlice {
        service,
        address_type: "IPv4",
        ports: vec![("", "TCP", 8080)],
        endpoints: vec![AnEndpoint {
            host,
            ready: Some(true),
            serving: None,
            terminating: None,
            node: None,
            zones: Vec::new(),
            nodes: Vec::new(),
        }],
    };
    Cluster {
        services: [("s1".into(), first), ("s2".into(), AService { cluster_ips: vec!["10.0.0.2"], ..second })]
            .into(),
        slices: [("a".into(), slice("s1", host)), ("b".into(), slice("s2", 9))].into(),
        ..Cluster::default()
    }
}

/// ST-1 too. A load balancer's IP goes to another Service, or to none, in the change that gives its first one other
/// endpoints, another port and source ranges: it shows none of these.
#[test]
fn a_frontend_shows_nothing_of_the_service_that_loses_it() {
    if let Some(reason) = skip::missing() {
        skip!("{reason}");
    }
    let before = two_services(service(80, true, &[]), 1, service(80, false, &[]));
    let taken = two_services(service(81, true, &["172.16.0.0/12"]), 2, service(80, true, &[]));
    let deleted = two_services(service(81, true, &["172.16.0.0/12"]), 2, service(80, false, &[]));
    for (from, to) in [(&before, &taken), (&before, &deleted)] {
        assert_eq!(crash_at_each_write(from, to), [""; 0]);
    }
}

/// ST-1 too: also what the next agent finds shows clients what they got before.
#[test]
fn a_crash_at_any_step_of_a_resize_changes_nothing_for_clients() {
    if let Some(reason) = skip::missing() {
        skip!("{reason}");
    }
    let cluster = two_services(service(80, true, &["172.16.0.0/12"]), 1, service(80, false, &[]));
    for direction in [Direction::Longer, Direction::Shorter] {
        for number in 1.. {
            let mut node = Node::new(cluster.clone(), ROOMY);
            let destinations = node.destinations();
            let before = node.fates(&destinations);
            let lived = node.resize(direction, number);
            assert_eq!(node.faults(), [""; 0], "{direction:?} at write {number}");
            assert_eq!(node.fates(&destinations), before, "{direction:?} at write {number}");
            if lived {
                println!("{direction:?}: {} deaths", number - 1);
                // One for each pin that takes its place, and more of what is copied.
                assert!((40..GROWTH).contains(&number), "{number}");
                assert_ne!(node.options.capacity.services, ROOMY.services);
                break;
            }
        }
    }
}

/// Tries cases until `limit`; says how many deaths that were, and how many changes got through.
fn try_cases(seconds: u32) -> (u32, u32) {
    let limit = Instant::now() + Duration::from_secs(seconds.into());
    let (deaths, whole) = (Cell::new(0), Cell::new(0));
    let config = ProptestConfig {
        cases: 1000,
        failure_persistence: None,
        max_shrink_iters: 30,
        ..ProptestConfig::default()
    };
    let changes = cluster::change()
        .prop_filter("addresses come apart", |change| !matches!(change, Change::LocalAddresses(_)));
    let strategy = (cluster::cluster(), prop::collection::vec(changes, 1..4), any::<u64>());
    let result = TestRunner::new(config).run(&strategy, |(from, changes, random)| {
        if Instant::now() > limit {
            return Ok(());
        }
        let mut to = from.clone();
        for change in changes {
            to.apply(change);
        }
        let mut node = Node::new(from.clone(), ROOMY);
        for number in 1_u64.. {
            let mut died = false;
            for to in [&to, &from] {
                if Instant::now() > limit {
                    return Ok(());
                }
                let next = (number % 2 == 0)
                    .then_some((random ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15)) % 100 + 1);
                let (faults, one_died) = crash_in_change(&mut node, to, number, next);
                prop_assert_eq!(faults, [""; 0]);
                died |= one_died;
                deaths.set(deaths.get() + u32::from(one_died));
            }
            if !died {
                whole.set(whole.get() + 1);
                break;
            }
        }
        Ok(())
    });
    if let Err(TestError::Fail(reason, case)) = result {
        panic!("{reason}\nin {case:#?}");
    }
    (deaths.get(), whole.get())
}

/// `SIDESTEP_STRESS_SECONDS` says for how long.
#[test]
fn a_crash_between_any_two_writes_shows_nobody_half_a_change() {
    if let Some(reason) = skip::missing() {
        skip!("{reason}");
    }
    let seconds = std::env::var("SIDESTEP_STRESS_SECONDS").map_or(8, |text| text.parse().expect("seconds"));
    let counts: Vec<(u32, u32)> = std::thread::scope(|scope| {
        let threads = [(); THREADS].map(|()| scope.spawn(move || try_cases(seconds)));
        threads.map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).into()
    });
    let deaths: u32 = counts.iter().map(|(deaths, _)| deaths).sum();
    let whole: u32 = counts.iter().map(|(_, whole)| whole).sum();
    println!(
        "{deaths} deaths in {seconds} s; {whole} changes and their way back died at each of their writes"
    );
    assert!(deaths >= ENOUGH, "only {deaths} deaths in {seconds} s");
}
