//! `select` on tables in memory: its decisions and its invariants.

use std::{cell::RefCell, collections::HashMap, net::IpAddr};

use proptest::prelude::*;
use proxy_common::{
    Address, AddressBits, Affinity, AffinityKey, Client, ClientAddresses, Decision, Endpoint, EndpointState,
    Found, Frontend, FrontendKey, FrontendKind, Policy, Port, Reason, Scope, SourceRange, Span, Tables,
    select, select::scale, service::EndpointSet,
};

const TCP: u8 = 6;
const SECOND: u64 = 1_000_000_000;

#[derive(Default)]
struct Memory {
    frontends: HashMap<FrontendKey, Frontend>,
    addresses: HashMap<Address, AddressBits>,
    spans: HashMap<u32, [Span; 3]>,
    affinity_seconds: HashMap<u32, u32>,
    endpoints: HashMap<u32, Endpoint>,
    states: HashMap<u32, EndpointState>,
    clients: RefCell<HashMap<(Address, u32), Affinity>>,
    source_sets: HashMap<u32, u16>,
    ranges: Vec<((u32, u16), SourceRange)>,
    cookies: HashMap<u64, ClientAddresses>,
}

impl Tables for Memory {
    fn frontend(&self, key: &FrontendKey) -> Option<Found> {
        self.frontends.get(key).copied().map(Found::from)
    }
    fn address(&self, address: &Address) -> AddressBits {
        self.addresses.get(address).copied().unwrap_or_default()
    }
    fn span(&self, service: u32, set: EndpointSet) -> Option<Span> {
        self.spans.get(&service).map(|spans| spans[set as usize])
    }
    fn policy(&self, service: u32) -> Option<Policy> {
        let affinity_seconds = self.affinity_seconds.get(&service).copied().unwrap_or(0);
        let source_set = self.source_sets.get(&service).copied().unwrap_or(0);
        Some(Policy { affinity_seconds, generation: 1, source_set })
    }
    fn endpoint(&self, slot: u32) -> Option<Endpoint> {
        self.endpoints.get(&slot).copied()
    }
    fn endpoint_state(&self, id: u32) -> Option<EndpointState> {
        self.states.get(&id).copied()
    }
    fn affinity(&self, key: &AffinityKey) -> Option<Affinity> {
        self.clients.borrow().get(&(key.client, key.service)).copied()
    }
    fn remember(&self, key: &AffinityKey, affinity: &Affinity) {
        assert_eq!(affinity.fingerprint, key.fingerprint());
        self.clients.borrow_mut().insert((key.client, key.service), *affinity);
    }
    fn refresh(&self, key: &AffinityKey, now: u64) {
        if let Some(found) = self.clients.borrow_mut().get_mut(&(key.client, key.service)) {
            found.last_used = now;
        }
    }
    fn admits(&self, service: u32, set: u16, source: &Address) -> bool {
        self.ranges.iter().any(|(owner, range)| *owner == (service, set) && range.contains(*source))
    }
    fn client(&self, cookie: u64) -> Option<ClientAddresses> {
        self.cookies.get(&cookie).copied()
    }
}

struct Caller {
    cookie: u32,
    is_node: bool,
    scope: Scope,
}

impl Client for Caller {
    fn identity(&self) -> Address {
        Address::from_words([self.cookie, 0, 0, 0])
    }
    fn is_node(&self) -> bool {
        self.is_node
    }
    fn scope(&self) -> Scope {
        self.scope
    }
    fn source(&self, tables: &impl Tables, destination: &Address) -> Option<Address> {
        tables.client(self.cookie.into())?.for_destination(destination)
    }
}

const POD: Caller = Caller { cookie: 7, is_node: false, scope: Scope::Inside };
const NODE: Caller = Caller { cookie: 1, is_node: true, scope: Scope::Inside };
const OUTSIDE: Caller = Caller { cookie: 0, is_node: false, scope: Scope::Outside };

fn address(text: &str) -> Address {
    text.parse::<IpAddr>().expect("a valid address").into()
}

fn key(text: &str, port: u16) -> FrontendKey {
    FrontendKey::new(address(text), Port::new(port), TCP)
}

impl Memory {
    /// Service 1 with `count` endpoints in slots from 100, for every set.
    fn with_service(count: u32) -> Self {
        let mut memory = Self::default();
        let span = if count == 0 { Span::refuse(Reason::NoEndpoints) } else { Span { base: 100, count } };
        memory.spans.insert(1, [span; 3]);
        for number in 0..count {
            memory.put(100 + number, number + 1);
        }
        memory
    }

    fn put(&mut self, slot: u32, id: u32) {
        let endpoint = Endpoint {
            address: Address::from_v4((0x0a01_0000 | id).to_be_bytes()),
            id,
            service: 1,
            port: Port::new(8080),
            generation: 1,
            flags: 0,
        };
        self.endpoints.insert(slot, endpoint);
        let bits = EndpointState::usable(EndpointSet::Cluster)
            | EndpointState::usable(EndpointSet::Inside)
            | EndpointState::usable(EndpointSet::Outside)
            | EndpointState::SERVING;
        self.states.insert(id, EndpointState { slot, generation: 1, bits });
    }

    fn frontend(mut self, key: FrontendKey, kind: FrontendKind) -> Self {
        self.frontends.insert(key, Frontend::new(&key, 1, kind));
        self
    }

    fn ask(&self, key: &FrontendKey, client: &Caller, now: u64, random: u32) -> Decision {
        select(self, key, client, || now, || random)
    }

    fn id(&self, key: &FrontendKey, client: &Caller, now: u64, random: u32) -> u32 {
        match self.ask(key, client, now, random) {
            Decision::Forward(forward) => forward.endpoint.id,
            other => panic!("no endpoint: {other:?}"),
        }
    }
}

#[test]
fn an_address_that_is_not_ours_is_left_alone() {
    assert_eq!(Memory::default().ask(&key("192.0.2.1", 80), &POD, 0, 0), Decision::NotService);
    assert_eq!(Memory::default().ask(&key("127.0.0.1", 80), &NODE, 0, 0), Decision::NotService);
}

/// PO-13, PO-20.
#[test]
fn an_unknown_port_is_refused_on_a_cluster_ip_only() {
    let mut memory = Memory::default();
    memory.addresses.insert(address("10.96.0.1"), AddressBits::CLUSTER_IP);
    memory.addresses.insert(address("203.0.113.1"), AddressBits::VIP);
    let both = AddressBits::VIP.with(AddressBits::NODE);
    memory.addresses.insert(address("203.0.113.2"), both);
    let refused = Decision::Refuse { service: None, reason: Reason::UnknownPort };
    assert_eq!(memory.ask(&key("10.96.0.1", 81), &POD, 0, 0), refused);
    assert_eq!(memory.ask(&key("203.0.113.1", 81), &POD, 0, 0), Decision::NotService);
    assert_eq!(memory.ask(&key("203.0.113.2", 22), &POD, 0, 0), Decision::NotService);
}

/// Whatever else an address is, a node's own address is never refused.
#[test]
fn a_node_address_is_never_refused_for_its_port() {
    let mut memory = Memory::default();
    memory.addresses.insert(address("192.0.2.9"), AddressBits::NODE.with(AddressBits::CLUSTER_IP));
    assert_eq!(memory.ask(&key("192.0.2.9", 6443), &POD, 0, 0), Decision::NotService);
}

/// PO-9, PO-21.
#[test]
fn a_node_port_is_on_node_addresses_and_on_the_nodes_own_loopback() {
    let any = FrontendKey::node_port(&Address::ANY_V4, Port::new(30080), TCP);
    let mut memory = Memory::with_service(1).frontend(any, FrontendKind::NodePort);
    memory.addresses.insert(address("192.0.2.9"), AddressBits::NODE);
    assert_eq!(memory.id(&key("192.0.2.9", 30080), &POD, 0, 0), 1);
    assert_eq!(memory.id(&key("127.0.0.1", 30080), &NODE, 0, 0), 1);
    assert_eq!(memory.id(&key("0.0.0.0", 30080), &NODE, 0, 0), 1);
    for (client, text) in [(&POD, "127.0.0.1"), (&POD, "0.0.0.0"), (&POD, "192.0.2.10"), (&NODE, "::1")] {
        assert_eq!(memory.ask(&key(text, 30080), client, 0, 0), Decision::NotService, "{text}");
    }
}

/// PO-11, CF-11: one entry disables NodePorts on the loopback addresses of its family, and nothing else.
#[test]
fn loopback_answers_no_node_port_where_the_table_says_so() {
    let any = |family| FrontendKey::node_port(&family, Port::new(30080), TCP);
    let mut memory = Memory::with_service(1)
        .frontend(any(Address::ANY_V4), FrontendKind::NodePort)
        .frontend(any(Address::ANY_V6), FrontendKind::NodePort);
    memory.addresses.insert(address("192.0.2.9"), AddressBits::NODE);
    memory.addresses.insert(Address::ANY_V4, AddressBits::SILENT_LOOPBACK);
    for (client, text) in [(&NODE, "127.0.0.1"), (&NODE, "127.8.8.8"), (&NODE, "0.0.0.0"), (&POD, "0.0.0.0")]
    {
        assert_eq!(memory.ask(&key(text, 30080), client, 0, 0), Decision::NotService, "{text}");
    }
    for text in ["::1", "::", "192.0.2.9"] {
        assert_eq!(memory.id(&key(text, 30080), &NODE, 0, 0), 1, "{text}");
    }
}

/// PO-1, PO-2, PO-3: each kind of frontend and client has its own set of endpoints.
#[test]
fn kind_and_origin_decide_which_set_is_used() {
    let (cluster, external) = (key("10.96.0.1", 80), key("203.0.113.1", 80));
    let mut memory = Memory::with_service(3)
        .frontend(cluster, FrontendKind::ClusterIp)
        .frontend(external, FrontendKind::LoadBalancer);
    memory.spans.insert(
        1,
        [Span::refuse(Reason::NoLocalEndpoints), Span { base: 100, count: 1 }, Span { base: 102, count: 1 }],
    );
    let refused = Decision::Refuse { service: Some(1), reason: Reason::NoLocalEndpoints };
    assert_eq!(memory.ask(&cluster, &POD, 0, 0), refused);
    assert_eq!(memory.ask(&cluster, &OUTSIDE, 0, 0), refused);
    assert_eq!(memory.id(&external, &POD, 0, u32::MAX), 1);
    assert_eq!(memory.id(&external, &OUTSIDE, 0, 0), 3);
}

/// ST-2.
#[test]
fn affinity_keeps_the_endpoint_and_slides_with_each_connection() {
    let vip = key("10.96.0.1", 80);
    let mut memory = Memory::with_service(10).frontend(vip, FrontendKind::ClusterIp);
    memory.affinity_seconds.insert(1, 10);
    assert_eq!(memory.id(&vip, &POD, 0, 0), 1);
    assert_eq!(memory.id(&vip, &POD, 9 * SECOND, u32::MAX), 1);
    assert_eq!(memory.id(&vip, &POD, 18 * SECOND, u32::MAX), 1, "the last connection was nine seconds ago");
    assert_eq!(memory.id(&vip, &NODE, 18 * SECOND, u32::MAX), 10, "another client");
    assert_eq!(memory.id(&vip, &POD, 28 * SECOND, u32::MAX), 10, "ten seconds have passed");
}

/// ST-2: the affinity entry of a removed endpoint is ignored; ST-3: state belongs to the endpoint, whatever its
/// slot.
#[test]
fn affinity_follows_the_endpoint_to_its_new_slot_and_ends_with_it() {
    let vip = key("10.96.0.1", 80);
    let mut memory = Memory::with_service(2).frontend(vip, FrontendKind::ClusterIp);
    memory.affinity_seconds.insert(1, 10);
    assert_eq!(memory.id(&vip, &POD, 0, 0), 1);
    // The set is replaced: endpoint 1 moves to slot 201, endpoint 3 is new.
    memory.put(200, 3);
    memory.put(201, 1);
    memory.spans.insert(1, [Span { base: 200, count: 2 }; 3]);
    assert_eq!(memory.id(&vip, &POD, SECOND, 0), 1);
    memory.states.insert(1, EndpointState { slot: 201, generation: 1, bits: EndpointState::SERVING });
    assert_eq!(memory.id(&vip, &POD, SECOND, 0), 3, "new connections need more than a serving endpoint");
    // The id is reused for another endpoint.
    memory.clients.borrow_mut().clear();
    assert_eq!(memory.id(&vip, &POD, SECOND, u32::MAX), 1);
    memory.put(201, 1);
    memory.states.insert(1, EndpointState { slot: 201, generation: 2, bits: 0xffff });
    assert_eq!(memory.id(&vip, &POD, SECOND, 0), 3, "the generation differs");
}

/// ST-1: source ranges apply to LoadBalancer IPs only, and are checked before the endpoints; ST-8: a client with
/// an unknown address is refused for a reason of its own.
#[test]
fn source_ranges_decide_at_load_balancer_ips_only() {
    let (vip, cluster, external) = (key("203.0.113.1", 80), key("10.96.0.1", 80), key("203.0.113.2", 80));
    let any = FrontendKey::node_port(&Address::ANY_V4, Port::new(30080), TCP);
    let mut memory = Memory::with_service(1)
        .frontend(vip, FrontendKind::LoadBalancer)
        .frontend(cluster, FrontendKind::ClusterIp)
        .frontend(external, FrontendKind::ExternalIp)
        .frontend(any, FrontendKind::NodePort);
    memory.addresses.insert(address("192.0.2.9"), AddressBits::NODE);
    assert_eq!(memory.id(&vip, &POD, 0, 0), 1, "set 0 admits every client");

    memory.source_sets.insert(1, 4);
    let refused = |reason| Decision::Refuse { service: Some(1), reason };
    assert_eq!(memory.ask(&vip, &POD, 0, 0), refused(Reason::ClientUnknown));
    memory.cookies.insert(7, ClientAddresses::new(7, Some(address("10.244.1.10")), None));
    assert_eq!(
        memory.ask(&vip, &POD, 0, 0),
        refused(Reason::SourceNotInRanges),
        "an empty set admits no client"
    );
    let range = SourceRange::new(address("10.244.1.0"), 24).expect("a range");
    for owner in [(1, 3), (2, 4)] {
        memory.ranges.push((owner, range));
        assert_eq!(
            memory.ask(&vip, &POD, 0, 0),
            refused(Reason::SourceNotInRanges),
            "the range belongs to {owner:?}"
        );
    }
    memory.ranges.push(((1, 4), range));
    assert_eq!(memory.id(&vip, &POD, 0, 0), 1);
    assert_eq!(memory.ask(&vip, &NODE, 0, 0), refused(Reason::ClientUnknown));
    for open in [cluster, external, key("192.0.2.9", 30080)] {
        assert_eq!(memory.id(&open, &NODE, 0, 0), 1, "{open}");
    }

    memory.spans.insert(1, [Span::refuse(Reason::NoEndpoints); 3]);
    assert_eq!(memory.ask(&vip, &POD, 0, 0), refused(Reason::NoEndpoints));
    assert_eq!(
        memory.ask(&vip, &NODE, 0, 0),
        refused(Reason::ClientUnknown),
        "the client learns nothing about the endpoints"
    );
}

/// ST-8: of the two addresses of a client, the one in the family of the VIP counts.
#[test]
fn a_client_is_judged_by_its_address_in_the_family_of_the_vip() {
    let vip = key("2001:db8::7", 80);
    let mut memory = Memory::with_service(1).frontend(vip, FrontendKind::LoadBalancer);
    memory.source_sets.insert(1, 1);
    memory.ranges.push(((1, 1), SourceRange::new(address("fd00::"), 64).expect("a range")));
    memory.cookies.insert(7, ClientAddresses::new(7, Some(address("10.244.1.10")), None));
    let refused = Decision::Refuse { service: Some(1), reason: Reason::ClientUnknown };
    assert_eq!(memory.ask(&vip, &POD, 0, 0), refused, "the client has no address of this family yet");
    let both = ClientAddresses::new(7, Some(address("10.244.1.10")), Some(address("fd00::10")));
    memory.cookies.insert(7, both);
    assert_eq!(memory.id(&vip, &POD, 0, 0), 1);
}

/// EP-13: evenly distributed random bits draw every slot of a span equally often.
#[test]
fn every_slot_is_drawn_equally_often() {
    for count in [1_u32, 2, 3, 7, 1000] {
        let draws = u64::from(count) * 100;
        let mut drawn = vec![0_u32; count as usize];
        for draw in 0..draws {
            let random = u32::try_from((draw << 32) / draws).expect("thirty-two bits");
            drawn[scale(random, count) as usize] += 1;
        }
        assert!(drawn.iter().all(|times| (99..=101).contains(times)), "{count}: {drawn:?}");
    }
}

#[test]
fn tables_that_disagree_refuse_by_name() {
    let vip = key("10.96.0.1", 80);
    let mut memory = Memory::default().frontend(vip, FrontendKind::ClusterIp);
    let refused = Decision::Refuse { service: Some(1), reason: Reason::Inconsistent };
    assert_eq!(memory.ask(&vip, &POD, 0, 0), refused, "no record");
    memory.spans.insert(1, [Span { base: 5, count: 1 }; 3]);
    assert_eq!(memory.ask(&vip, &POD, 0, 0), refused, "no slot");
}

#[test]
fn reasons_keep_their_numbers() {
    let numbers: Vec<u32> = Reason::ALL.iter().map(|reason| *reason as u32).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12], "numbers are never reused; append new reasons");
    for reason in Reason::ALL {
        assert_eq!(Reason::from_number(reason as u32), reason);
        assert!((reason as u32) < Reason::LIMIT);
    }
}

proptest! {
    #[test]
    fn the_choice_never_leaves_the_span(
        base in 0_u32..1000,
        count in 1_u32..1000,
        seconds in prop_oneof![Just(0_u32), 1_u32..100],
        randoms in prop::collection::vec(any::<u32>(), 1..50),
        times in prop::collection::vec(0_u64..200 * SECOND, 50),
    ) {
        let vip = key("10.96.0.1", 80);
        let mut memory = Memory::default().frontend(vip, FrontendKind::ClusterIp);
        memory.spans.insert(1, [Span { base, count }; 3]);
        memory.affinity_seconds.insert(1, seconds);
        // Every slot exists, so that a choice outside of the span would be noticed.
        for slot in 0..2500 { memory.put(slot, slot + 1); }
        for (random, now) in randoms.into_iter().zip(times) {
            let id = memory.id(&vip, &POD, now, random);
            prop_assert!((base..base + count).contains(&(id - 1)));
        }
    }

    #[test]
    fn scaling_covers_the_range_evenly(count in 1_u32..100_000) {
        prop_assert_eq!(scale(0, count), 0);
        prop_assert_eq!(scale(u32::MAX, count), count - 1);
        // The share of each value differs by at most one part in 2^32 / count.
        let middle = scale(1 << 31, count);
        prop_assert!(middle == count / 2);
    }

    #[test]
    fn fingerprints_tell_keys_apart(a in any::<[u32; 4]>(), b in any::<[u32; 4]>(), port in any::<u16>()) {
        prop_assume!(a != b);
        let (a, b) = (Address::from_words(a), Address::from_words(b));
        let key = |address| FrontendKey::new(address, Port::new(port), TCP);
        // Fingerprints collide once in 2^24; in the few hundred cases of proptest that does not happen.
        prop_assert_ne!(key(a).fingerprint(), key(b).fingerprint());
    }
}
