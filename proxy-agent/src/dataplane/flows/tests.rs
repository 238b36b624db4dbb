//! The sweep on the kernel's own table, filled by system calls as programs would fill it.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use proxy_common::{Address, Flow, FlowEndpoint, FlowKey, Life, PacketHook, Port, Protocol};
use sidestep_tests::{identity::Identity, pins::PinDirectory, skip};

use super::{
    FlowOptions, FlowTable, Timeouts,
    sweep::{Swept, remove, sweep},
};
use crate::dataplane::{Capacity, Options, Tables, load};

const NOW: u32 = 1_000_000;
const ENDPOINT: FlowEndpoint = FlowEndpoint { id: 7, generation: 1, service: 3 };

/// FLOWS in a pin directory of its own.
struct Fixture {
    table: FlowTable,
    pins: PinDirectory,
}

impl Fixture {
    fn new(flows: u32) -> Self {
        let pins = PinDirectory::new(&Identity::new().to_string()).expect("bpffs");
        let options = Options {
            pin_dir: pins.path().to_owned(),
            // Nothing is attached.
            cgroup_root: "/nowhere".into(),
            capacity: Capacity { services: 64, frontends: 64, endpoints: 64, flows },
            program_log: false,
            flows: FlowOptions::default(),
        };
        drop(load(&options).expect("the maps"));
        Self { table: FlowTable::open(pins.path()).expect("FLOWS"), pins }
    }

    /// Puts a pair in, and says what its keys are.
    fn pair(&mut self, key: FlowKey, to: End, forward: Life, reply: Life) -> [FlowKey; 2] {
        let confirmed = |life: Life| Life { bits: life.bits | Life::SEEN | Life::CONFIRMED, ..life };
        let (forward, reply) = (confirmed(forward), confirmed(reply));
        let forward = Life { bits: forward.bits | Life::FORWARD, ..forward };
        let flow = Flow::new(&key, to.0, to.1, ENDPOINT, forward);
        let peer_key = flow.peer_key(&key);
        self.table.insert(&key, &flow);
        self.table.insert(&peer_key, &flow.peer(&key, &peer_key, reply));
        [key, peer_key]
    }

    fn left(&self) -> BTreeSet<FlowKey> {
        let mut keys = BTreeSet::new();
        self.table.visit(|key, flow| {
            if flow.life.has(Life::CONFIRMED) {
                assert!(keys.insert(*key), "visited twice");
            }
        });
        keys
    }

    fn sweep(&mut self) -> Swept {
        let timeouts = Timeouts {
            tcp_established: Duration::from_secs(1000),
            tcp_close_wait: Duration::from_secs(100),
            udp: Duration::from_secs(1),
            udp_stream: Duration::from_secs(50),
        };
        sweep(&self.table, &timeouts, NOW)
    }
}

type End = (Address, Port);

fn end(address: &str, port: u16) -> End {
    (Address::from(address.parse::<IpAddr>().expect("an address")), Port::new(port))
}

fn frontend() -> End {
    end("192.0.2.1", 30_080)
}

fn endpoint() -> End {
    end("10.244.2.5", 8080)
}

/// A client's packet as it comes in.
fn arriving(protocol: Protocol, client: End) -> FlowKey {
    FlowKey::new(PacketHook::Ingress, protocol as u8, client, frontend())
}

/// The same as it leaves.
fn leaving(protocol: Protocol, client: End) -> FlowKey {
    FlowKey::new(PacketHook::Egress, protocol as u8, client, endpoint())
}

fn idle(seconds: u32) -> Life {
    Life { seconds: NOW - seconds, bits: 0 }
}

/// CF-14: of masqueraded and other flows, what is idle goes, pair by pair; the rest stays, whatever became of its
/// Service (ST-4: no Service and no endpoint of these flows exists).
#[test]
fn idle_pairs_go_and_nothing_else() {
    if let Some(reason) = skip::missing() {
        skip!("{reason}");
    }
    let mut node = Fixture::new(256);
    let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
    let client = |number| end("198.51.100.7", number);
    let source = |number: u16| end("192.0.2.1", 49_152 + number);
    let fin = |life: Life| Life { bits: Life::FIN, ..life };
    let mut stays = BTreeSet::new();
    let mut goes = 0;

    // Used lately; idle, but answered; idle.
    stays.extend(node.pair(arriving(tcp, client(1)), endpoint(), idle(900), idle(1000)));
    stays.extend(node.pair(arriving(tcp, client(2)), endpoint(), idle(5000), idle(0)));
    goes += node.pair(arriving(tcp, client(3)), endpoint(), idle(1001), idle(2000)).len();
    // Half closed.
    stays.extend(node.pair(arriving(tcp, client(4)), endpoint(), fin(idle(99)), idle(500)));
    goes += node.pair(arriving(tcp, client(5)), endpoint(), fin(idle(101)), idle(500)).len();
    goes += node.pair(arriving(tcp, client(6)), endpoint(), idle(101), fin(idle(500))).len();
    // UDP.
    stays.extend(node.pair(arriving(udp, client(1)), endpoint(), idle(49), idle(60)));
    goes += node.pair(arriving(udp, client(2)), endpoint(), idle(51), idle(60)).len();
    // Masqueraded: the pair that masquerades outlives the other by a minute.
    goes += node.pair(arriving(udp, client(3)), endpoint(), idle(51), idle(51)).len();
    stays.extend(node.pair(leaving(udp, client(3)), source(0), idle(51), idle(51)));
    goes += node.pair(leaving(udp, client(4)), source(1), idle(111), idle(111)).len();
    // IPv6.
    goes += node.pair(arriving(tcp, end("2001:db8::7", 1)), endpoint(), idle(1001), idle(1001)).len();
    // To be masqueraded, and never left the node.
    for (number, seconds) in [(5, 111), (6, 110)] {
        let key = leaving(udp, client(number));
        let life = Life { bits: Life::FORWARD | Life::CONFIRMED, ..idle(seconds) };
        node.table.insert(&key, &Flow::new(&key, endpoint().0, Port::new(0), ENDPOINT, life));
        if number == 6 {
            stays.insert(key);
        } else {
            goes += 1;
        }
    }
    // Replies whose other half is gone.
    for (number, seconds) in [(7, 1001), (8, 900)] {
        let [forward, reply] = node.pair(arriving(tcp, client(number)), endpoint(), idle(0), idle(seconds));
        let (flow, place) = node.table.find(&forward).expect("it was put in");
        assert!(node.table.release(place, flow.life));
        if number == 8 {
            stays.insert(reply);
        } else {
            goes += 1;
        }
    }

    let elements = stays.len() + goes;
    assert_eq!(node.sweep(), Swept { elements, removed: goes, earliest: Some(1) });
    assert_eq!(node.left(), stays);
    assert_eq!(node.sweep(), Swept { elements: stays.len(), removed: 0, earliest: Some(1) });
}

/// A pair that is used between the look at the table and its removal stays.
#[test]
fn a_pair_that_is_used_meanwhile_stays() {
    if let Some(reason) = skip::missing() {
        skip!("{reason}");
    }
    let mut node = Fixture::new(64);
    let timeouts = Timeouts::default();
    let key = arriving(Protocol::Udp, end("198.51.100.7", 1));
    node.pair(key, endpoint(), idle(200), idle(200));
    node.pair(key, endpoint(), idle(200), idle(0));
    assert_eq!(remove(&node.table, &timeouts, NOW, &key), 0);
    node.pair(key, endpoint(), idle(200), idle(200));
    assert_eq!(remove(&node.table, &timeouts, NOW, &key), 2);
    assert_eq!(node.left(), BTreeSet::new());
}

/// A table with very many flows is read whole, each element once, and costs what its size is.
#[test]
fn very_many_flows_are_swept() {
    const FLOWS: u16 = 50_000;
    if let Some(reason) = skip::missing() {
        skip!("{reason}");
    }
    let mut node = Fixture::new(1 << 18);
    for number in 0..FLOWS {
        let life = if number % 2 == 0 { idle(0) } else { idle(60) };
        node.pair(arriving(Protocol::Udp, end("198.51.100.7", number)), endpoint(), life, life);
    }
    let began = std::time::Instant::now();
    let swept = node.sweep();
    let took = began.elapsed();
    let elements = 2 * usize::from(FLOWS);
    assert_eq!(swept, Swept { elements, removed: elements / 2, earliest: Some(51) });
    let began = std::time::Instant::now();
    assert_eq!(node.sweep(), Swept { elements: elements / 2, removed: 0, earliest: Some(51) });
    println!("{elements} elements: {took:?}, with half of them removed; then {:?}", began.elapsed());
    let tables = Tables::open(node.pins.path()).expect("tables");
    assert_eq!(tables.flows.count(), (elements / 2, elements / 4));
}
