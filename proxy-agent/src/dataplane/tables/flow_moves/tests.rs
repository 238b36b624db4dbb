//! Moves on real maps, filled as the programs would fill them.

use std::collections::BTreeSet;

use bytemuck::Zeroable as _;
use proxy_common::{Address, Protocol};
use sidestep_tests::{identity::Identity, pins::PinDirectory};

use super::*;
use crate::dataplane::{
    Capacity, Options, abi_dir, load, make_beside,
    tables::{maps::mapped, pinned::Tables},
};

/// One region has room for 448.
const REGION: u32 = 448;
/// Frontends of each client: more than a bucket has slots.
const FRONTENDS: u16 = 20;
const NOW: u32 = 1_000_000;
const RECENT: Recent = Recent { now: NOW, seconds: 16 };

/// A table of connections, and one of another length beside it.
struct Fixture {
    old: Tables,
    old_owners: Mapped<PortOwners>,
    new: Tables,
    new_owners: Mapped<PortOwners>,
    _pins: PinDirectory,
}

impl Fixture {
    fn new(old: u32, new: u32) -> Self {
        let pins = PinDirectory::new(&Identity::new().to_string()).expect("bpffs");
        let capacity = Capacity { services: 64, frontends: 64, endpoints: 64, clients: 64, flows: old };
        let options = Options::unattached(pins.path(), capacity);
        drop(load(&options).expect("the maps"));
        let old = Tables::open(pins.path()).expect("the tables");
        drop(make_beside(&options, &Capacity { flows: new, ..capacity }).expect("bigger ones"));
        Self {
            old_owners: mapped(&abi_dir(pins.path()), "SOURCE_PORTS").expect("source ports"),
            new_owners: Tables::next_source_ports(pins.path()).expect("openable").expect("they follow FLOWS"),
            new: old.next(pins.path()).expect("the next tables"),
            old,
            _pins: pins,
        }
    }

    fn put(&self, record: &Record, kept: bool) {
        self.put_at(77, record, kept);
    }

    fn put_at(&self, second: u8, record: &Record, kept: bool) {
        let found = Found { id: RecordId::NONE, record: *record, kept };
        assert!(Destination { flows: &self.old.flows, owners: &self.old_owners }.put(&found, second));
    }

    fn next(&self) -> Destination<'_> {
        Destination { flows: &self.new.flows, owners: &self.new_owners }
    }

    /// What the other table knows of a connection.
    fn found(&self, record: &Record) -> Option<Found> {
        self.new.flows.find(&record.ends)
    }
}

/// The record of one of a client's connections; of three, one is masqueraded, and one remapped.
fn record(number: u16) -> Record {
    let [high, low] = (number / FRONTENDS).to_be_bytes();
    let mut record = Record::zeroed();
    record.ends = Ends {
        client: Address::from_v4([198, 51, high, low]),
        frontend: Address::from_v4([192, 0, 2, 1]),
        endpoint: Address::from_v4([10, 244, 2, 5]),
        client_port: Port::new(40_000),
        frontend_port: Port::new(30_000 + number % FRONTENDS),
        endpoint_port: Port::new(8000 + number % FRONTENDS),
        protocol: Protocol::Tcp as u8,
        flags: [Ends::MASQUERADED, Ends::REMAPPED | Ends::LOCAL, Ends::LOCAL][usize::from(number % 3)],
        seen: Seen { client: Seen::PACKET, ..Seen::default() },
        ..record.ends
    };
    record.origin.source_port = Port::new(50_000 + number % 200);
    (record.origin.seconds, record.origin.began) = (NOW, NOW);
    record.sealed()
}

#[test]
fn every_connection_is_in_the_bigger_table_and_owns_its_source_port() {
    let fixture = Fixture::new(REGION, 10 * REGION);
    let records: Vec<Record> = (0..300).map(record).collect();
    for (number, record) in records.iter().enumerate() {
        fixture.put(record, number % 2 == 0);
    }
    assert_eq!(fixture.next().take_from(&fixture.old.flows, RECENT), Moved { moved: 300, lost: 0 });
    let mut ids = BTreeSet::new();
    for (number, record) in records.iter().enumerate() {
        let found = fixture.found(record).expect("it is there");
        assert_eq!((found.record, found.kept), (*record, number % 2 == 0));
        assert!(ids.insert(found.id), "two in one slot");
        assert_eq!(fixture.new.flows.second_of(found.id), 77);
        let Ends { client, client_port, protocol, .. } = record.ends;
        assert!(fixture.new.flows.of_client(&client, client_port, protocol).any(|its| its == found));
        if number % 3 != 2 {
            let owners = fixture.new_owners.load(record.origin.source_port.number.into()).expect("a port");
            let tag = PortOwners::tag(&record.ends.endpoint, record.ends.endpoint_port, protocol);
            let owns = |lane| owners.tags[lane as usize] == tag && owners.record_id(lane) == found.id;
            assert_eq!((0..LANES).filter(|lane| owns(*lane)).count(), 1, "{owners:?}");
        }
    }
    // Once more: all are there.
    assert_eq!(fixture.next().take_from(&fixture.old.flows, RECENT), Moved::default());
    assert_eq!(fixture.new.flows.count(), (300, 150));
}

/// Nobody would miss the others, and they would leave no room for those that come.
#[test]
fn a_shorter_table_gets_what_is_kept_and_what_may_still_be_confirmed() {
    let fixture = Fixture::new(10 * REGION, REGION);
    let now = NOW.to_le_bytes()[0];
    let records: Vec<Record> = (0..600).map(record).collect();
    for (number, record) in records.iter().enumerate() {
        let second = now.wrapping_sub(if number % 10 == 1 { 1 } else { 100 });
        fixture.put_at(second, record, number % 10 == 0);
    }
    assert_eq!(fixture.next().take_from(&fixture.old.flows, RECENT), Moved { moved: 120, lost: 0 });
    assert_eq!(fixture.new.flows.count(), (120, 60));
    for (number, record) in records.iter().enumerate() {
        assert_eq!(fixture.found(record).is_some(), number % 10 < 2, "{number}");
    }
}

#[test]
fn what_changed_since_the_first_copy_follows() {
    let fixture = Fixture::new(REGION, 2 * REGION);
    let [confirmed, ended, late, newer] = [1, 2, 3, 4].map(record);
    fixture.put(&confirmed, false);
    fixture.put(&ended, true);
    assert_eq!(fixture.next().take_from(&fixture.old.flows, RECENT).moved, 2);
    // A packet of the endpoint and one more of the client at programs that use the old table; the other connection ends.
    let old = &fixture.old.flows;
    let at = old.find(&confirmed.ends).expect("there").id;
    let mut changed = confirmed;
    changed.ends.seen.endpoint = Seen::PACKET;
    changed.origin.answer = 4711;
    old.records().store(at.index(), &changed);
    set_byte(old.uses().word(at.bucket(), 1), at.slot(), Kept::CONFIRMED);
    let gone = old.find(&ended.ends).expect("there").id;
    set_byte(old.tags().word(gone.bucket(), 0), gone.slot(), 0);
    fixture.put(&late, true);
    // One that began at programs that use the bigger table, after the copy.
    let mut began = newer;
    (began.origin.began, began.origin.seconds) = (NOW + 5, NOW + 5);
    assert!(fixture.next().put(&Found { id: RecordId::NONE, record: began.sealed(), kept: true }, 0));

    assert_eq!(fixture.next().take_from(old, RECENT), Moved { moved: 1, lost: 0 });
    fixture.next().give_up_ended(old, NOW + 2);
    let kept = |record: &Record| fixture.found(record).map(|found| found.kept);
    assert_eq!([&confirmed, &ended, &late, &began].map(kept), [true, false, true, true].map(Some));
    assert_eq!(fixture.found(&confirmed).expect("there").record, changed);
}

/// A client's port is used again while connections move: the record of before is still in the old table, and has made way in the
/// new one.
#[test]
fn a_connection_that_ended_does_not_come_back_beside_a_newer_one() {
    for (endpoint, frontend) in [(0, 0), (1, 0), (0, 1)] {
        let fixture = Fixture::new(REGION, 2 * REGION);
        let mut ended = record(2);
        ended.ends.seen =
            Seen { client: Seen::PACKET | Seen::FIN, endpoint: Seen::PACKET | Seen::FIN, ..Seen::default() };
        fixture.put(&ended, false);
        let mut newer = record(2);
        newer.ends.endpoint_port = Port::new(8002 + endpoint);
        newer.ends.frontend_port = Port::new(30_002 + frontend);
        newer.origin.began = NOW + 1;
        let newer = newer.sealed();
        let found = Found { id: RecordId::NONE, record: newer, kept: false };
        assert!(fixture.next().put(&found, 78));
        assert_eq!(fixture.next().take_late_from(&fixture.old.flows, RECENT), Moved::default());
        assert_eq!(fixture.new.flows.count(), (1, 0), "{endpoint} {frontend}");
        let there = fixture.found(&newer).expect("the newer one");
        assert_eq!(there.record.ends.seen, newer.ends.seen, "it has not ended");

        // Nor one that looks alive.
        let mut stale = ended;
        stale.ends.seen.client = Seen::PACKET;
        let at = fixture.old.flows.find(&ended.ends).expect("there").id;
        fixture.old.flows.records().store(at.index(), &stale);
        assert_eq!(fixture.next().take_late_from(&fixture.old.flows, RECENT), Moved::default());
        assert_eq!(fixture.new.flows.count(), (1, 0), "{endpoint} {frontend}");
    }
}

/// It began at a program on the old table, after the first copy.
#[test]
fn a_newer_connection_takes_the_place_of_one_that_had_been_copied() {
    for (endpoint, frontend) in [(0, 0), (1, 0), (0, 1)] {
        let fixture = Fixture::new(REGION, 2 * REGION);
        let mut ended = record(2);
        ended.ends.seen.endpoint = Seen::PACKET | Seen::FIN;
        ended.ends.seen.client = Seen::PACKET | Seen::FIN;
        fixture.put(&ended, false);
        assert_eq!(fixture.next().take_from(&fixture.old.flows, RECENT).moved, 1);
        let old = &fixture.old.flows;
        old.remove(&old.find(&ended.ends).expect("there"));
        let mut newer = record(2);
        newer.ends.endpoint_port = Port::new(8002 + endpoint);
        newer.ends.frontend_port = Port::new(30_002 + frontend);
        newer.origin.began = NOW + 1;
        let newer = newer.sealed();
        fixture.put(&newer, true);
        assert_eq!(fixture.next().take_from(old, RECENT), Moved { moved: 1, lost: 0 });
        assert_eq!(fixture.new.flows.count(), (1, 1), "{endpoint} {frontend}");
        assert_eq!(fixture.found(&newer).map(|there| there.record), Some(newer));
        assert_eq!(fixture.next().take_late_from(old, RECENT), Moved::default());
    }
}

#[test]
fn a_table_without_room_says_how_many_are_lost() {
    let fixture = Fixture::new(8 * REGION, REGION);
    for number in 0..500 {
        fixture.put(&record(number), true);
    }
    let moved = fixture.next().take_from(&fixture.old.flows, RECENT);
    assert!(moved.lost >= 52 && moved.moved + moved.lost == 500, "{moved:?}");
    assert_eq!(fixture.new.flows.count(), (moved.moved, moved.moved));
}
