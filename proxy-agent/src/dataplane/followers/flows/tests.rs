//! The sweep on a real map, filled by system calls as the programs would fill it.

use std::{collections::BTreeSet, time::Duration};

use bytemuck::Zeroable as _;
use proxy_common::{
    Address, Port, Protocol, Record,
    connection::{Ends, RecordId, Seen},
};
use sidestep_tests::{identity::Identity, pins::PinDirectory, skip};

use super::sweep::{Swept, sweep};
use crate::{
    dataplane::{Capacity, FlowTable, Options, Tables, load},
    timeouts::Timeouts,
};

const NOW: u32 = 1_000_000;

/// The record of a client with this port.
pub(super) fn record(port: u16, protocol: Protocol) -> Record {
    let mut record = Record::zeroed();
    record.ends = Ends {
        client: Address::from_v4([198, 51, 100, 7]),
        frontend: Address::from_v4([192, 0, 2, 1]),
        endpoint: Address::from_v4([10, 244, 2, 5]),
        client_port: Port::new(port),
        frontend_port: Port::new(30_080),
        endpoint_port: Port::new(8080),
        protocol: protocol as u8,
        ..record.ends
    };
    record
}

/// FLOWS in a pin directory of its own.
struct Fixture {
    table: FlowTable,
    pins: PinDirectory,
}

impl Fixture {
    fn new(flows: u32) -> Self {
        let pins = PinDirectory::new(&Identity::new().to_string()).expect("bpffs");
        let options = Options::unattached(
            pins.path(),
            Capacity { services: 64, frontends: 64, endpoints: 64, clients: 64, flows },
        );
        drop(load(&options).expect("the maps"));
        Self { table: Tables::open(pins.path()).expect("the tables").flows, pins }
    }

    /// Puts a confirmed connection in.
    fn put(&self, port: u16, protocol: Protocol, seen: Seen, idle: u32) -> RecordId {
        let mut record = record(port, protocol);
        record.ends.seen = seen;
        record.origin.seconds = NOW - idle;
        self.table.insert(&record, true)
    }

    fn kept(&self) -> BTreeSet<RecordId> {
        let mut ids = BTreeSet::new();
        self.table.visit(|found| {
            if found.kept {
                assert!(ids.insert(found.id), "visited twice");
            }
        });
        ids
    }

    fn sweep(&self) -> Swept {
        let timeouts = Timeouts {
            tcp_established: Duration::from_secs(1000),
            tcp_close_wait: Duration::from_secs(100),
            udp: Duration::from_secs(1),
            udp_stream: Duration::from_secs(50),
        };
        sweep(&self.table, &timeouts, NOW)
    }
}

/// CF-14: idle connections are released and others stay, even without their Service and endpoint, neither of which
/// exists here (ST-4).
#[test]
fn idle_connections_are_released_and_no_others() {
    if let Some(reason) = skip::missing() {
        skip!("{reason}");
    }
    let node = Fixture::new(4096);
    let (open, fin) = (Seen::default(), Seen { client: Seen::FIN, ..Seen::default() });
    let stays: BTreeSet<RecordId> = [
        node.put(1, Protocol::Tcp, open, 1000),
        node.put(2, Protocol::Tcp, fin, 99),
        node.put(3, Protocol::Udp, open, 49),
    ]
    .into();
    node.put(4, Protocol::Tcp, open, 1001);
    node.put(5, Protocol::Tcp, fin, 101);
    node.put(6, Protocol::Udp, open, 51);
    assert_eq!(node.sweep(), Swept { confirmed: 6, released: 3, earliest: Some(1) });
    assert_eq!(node.kept(), stays);
    assert_eq!(node.sweep(), Swept { confirmed: 3, released: 0, earliest: Some(1) });
}

/// A connection that is used between the verdict and the release stays.
#[test]
fn a_connection_that_is_used_meanwhile_stays() {
    if let Some(reason) = skip::missing() {
        skip!("{reason}");
    }
    let node = Fixture::new(448);
    let id = node.put(1, Protocol::Udp, Seen::default(), 200);
    let client = record(1, Protocol::Udp).ends;
    let find =
        || node.table.of_client(&client.client, client.client_port, client.protocol).next().expect("one");
    let mut stale = find();
    assert_eq!(stale.id, id);
    stale.record.origin.seconds -= 1;
    assert!(!node.table.release(&stale));
    assert!(find().kept);
    assert!(node.table.release(&find()));
    assert!(!find().kept && !node.table.release(&find()));
}

/// A table with very many connections is read whole, each once, and costs what its size is.
#[test]
fn very_many_connections_are_swept() {
    // So few for the table's size that no bucket is ever asked for an eighth slot, whatever the seed.
    const CONNECTIONS: u16 = 10_000;
    if let Some(reason) = skip::missing() {
        skip!("{reason}");
    }
    let node = Fixture::new(1 << 18);
    for number in 0..CONNECTIONS {
        node.put(number, Protocol::Udp, Seen::default(), if number % 2 == 0 { 0 } else { 60 });
    }
    let began = std::time::Instant::now();
    let swept = node.sweep();
    let took = began.elapsed();
    let confirmed = usize::from(CONNECTIONS);
    assert_eq!(swept, Swept { confirmed, released: confirmed / 2, earliest: Some(51) });
    let began = std::time::Instant::now();
    assert_eq!(node.sweep(), Swept { confirmed: confirmed / 2, released: 0, earliest: Some(51) });
    println!("{confirmed} connections: {took:?}, with half of them released; then {:?}", began.elapsed());
    let tables = Tables::open(node.pins.path()).expect("tables");
    assert_eq!(tables.flows.count(), (confirmed, confirmed / 2));
}
