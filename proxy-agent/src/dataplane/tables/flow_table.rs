//! FLOWS, in memory that the programs write at any moment.
//!
//! The agent writes no record, but for moving them to another table (`flow_moves`). It only makes a slot evictable, and only
//! if no packet of its connection has passed since the verdict.

use std::sync::atomic::Ordering;

use proxy_common::{
    Address, FlowTags, FlowUses, Port, Record,
    connection::{
        Ends, Home, Kept, RecordId,
        buckets::{self, REACH, SLOTS},
    },
};

use super::mapped::Mapped;

/// The table of connections.
#[derive(Debug)]
pub struct FlowTable {
    records: Mapped<Record>,
    tags: Mapped<FlowTags>,
    uses: Mapped<FlowUses>,
    seed: u64,
}

/// A record, and whether it is kept from eviction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found {
    /// Its id.
    pub(crate) id: RecordId,
    /// The record.
    pub record: Record,
    /// Whether its slot is kept.
    pub kept: bool,
}

/// Which unconfirmed connections take room: those whose last packet came a moment ago.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recent {
    /// The present, in seconds since boot.
    pub(crate) now: u32,
    /// How many seconds ago that may be; fewer than 255.
    pub(crate) seconds: u8,
}

impl Recent {
    /// Whether a packet that came at `second`, modulo 256, is recent: also if that was just after `now`.
    pub(super) fn includes(self, second: u8) -> bool {
        self.now.to_le_bytes()[0].wrapping_add(1).wrapping_sub(second) <= self.seconds.saturating_add(1)
    }
}

impl FlowTable {
    pub(crate) fn new(
        records: Mapped<Record>,
        tags: Mapped<FlowTags>,
        uses: Mapped<FlowUses>,
        seed: &Mapped<u64>,
    ) -> Self {
        Self { records, tags, uses, seed: seed.load(0).unwrap_or_default() }
    }

    pub(super) fn records(&self) -> &Mapped<Record> {
        &self.records
    }

    pub(super) fn tags(&self) -> &Mapped<FlowTags> {
        &self.tags
    }

    pub(super) fn uses(&self) -> &Mapped<FlowUses> {
        &self.uses
    }

    /// How many connections it has room for.
    pub fn room(&self) -> u32 {
        self.records.len()
    }

    /// Calls `visit` with every complete record.
    pub fn visit(&self, mut visit: impl FnMut(&Found)) {
        for bucket in 0..self.tags.len() {
            self.in_bucket(bucket).for_each(|found| visit(&found));
        }
    }

    /// Calls `visit` with the tag, the second of the last packet and the [`Kept`] bits of every slot.
    pub(crate) fn visit_slots(&self, mut visit: impl FnMut(u8, u8, u8)) {
        for bucket in 0..self.tags.len() {
            let tags = self.tags.load(bucket).unwrap_or_default();
            let uses = self.uses.load(bucket).unwrap_or_default();
            for slot in 0..SLOTS as usize {
                visit(tags.tags[slot], uses.seconds[slot], uses.kept[slot]);
            }
        }
    }

    /// How many slots are in use: those of connections that are kept, and of those that are recent.
    pub(crate) fn in_use(&self, recent: Recent) -> u32 {
        let mut used = 0;
        self.visit_slots(|tag, second, kept| {
            used += u32::from(tag != 0 && (Kept::keeps(kept) || recent.includes(second)));
        });
        used
    }

    /// Where the records of a client are.
    pub(super) fn home_of(&self, client: &Address, port: Port, protocol: u8) -> Home {
        Home::new(buckets::hash(client, port, protocol, self.seed), self.tags.len() / buckets::REGION)
    }

    /// The records of a client.
    pub(crate) fn of_client(
        &self,
        client: &Address,
        port: Port,
        protocol: u8,
    ) -> impl Iterator<Item = Found> + use<'_> {
        let client = *client;
        let home = self.home_of(&client, port, protocol);
        let is_its = move |found: &Found| {
            let Ends { client: other, client_port, protocol: its, .. } = &found.record.ends;
            *other == client && *client_port == port && *its == protocol
        };
        (0..REACH).flat_map(move |turn| self.in_bucket(home.bucket(turn))).filter(is_its)
    }

    /// The number of records, and of confirmed ones among them.
    pub fn count(&self) -> (usize, usize) {
        let (mut records, mut kept) = (0, 0);
        self.visit(|found| {
            records += 1;
            kept += usize::from(found.kept);
        });
        (records, kept)
    }

    /// Makes a slot evictable, if its record has not changed since it was read.
    pub(crate) fn release(&self, found: &Found) -> bool {
        let Found { id, record, .. } = found;
        let (bucket, shift) = (id.bucket(), 8 * id.slot());
        let release = |kept: u64| {
            let now = self.records.load(id.index())?;
            let same = now.ends.check == record.ends.check && now.origin.seconds == record.origin.seconds;
            (same && buckets::byte(kept, id.slot()) & Kept::CONFIRMED != 0)
                .then(|| kept & !(u64::from(Kept::CONFIRMED) << shift))
        };
        self.uses.word(bucket, 1).fetch_update(Ordering::AcqRel, Ordering::Acquire, release).is_ok()
    }

    pub(super) fn in_bucket(&self, bucket: u32) -> impl Iterator<Item = Found> + use<'_> {
        let tags = self.tags.load(bucket).unwrap_or_default();
        let uses = self.uses.load(bucket).unwrap_or_default();
        (0..SLOTS).zip(tags.tags.into_iter().zip(uses.kept)).filter_map(move |(slot, (tag, kept))| {
            if tag == 0 || kept & Kept::RESERVED != 0 {
                return None;
            }
            let id = RecordId::new(bucket, slot);
            let record = self.records.load(id.index()).filter(Record::is_whole)?;
            Some(Found { id, record, kept: kept & Kept::CONFIRMED != 0 })
        })
    }

    /// Puts a record into a free slot of its home, for tests.
    #[cfg(test)]
    pub(crate) fn insert(&self, record: &Record, kept: bool) -> RecordId {
        let ends = &record.ends;
        let home = self.home_of(&ends.client, ends.client_port, ends.protocol);
        let bucket = home.bucket(0);
        let (mut tags, mut uses) =
            (self.tags.load(bucket).expect("tags"), self.uses.load(bucket).expect("uses"));
        let slot = tags.tags.iter().position(|tag| *tag == 0).expect("room");
        let id = RecordId::new(bucket, u32::try_from(slot).expect("a slot"));
        tags.tags[slot] = home.tag();
        uses.kept[slot] = if kept { Kept::CONFIRMED } else { 0 };
        self.records.store(id.index(), &record.sealed());
        self.uses.store(bucket, &uses);
        self.tags.store(bucket, &tags);
        id
    }
}
