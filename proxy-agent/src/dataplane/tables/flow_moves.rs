//! Moves connection records to another table, of another length: first while no program uses it, then, for what changed
//! meanwhile, while all do. A shorter table gets only those that are kept or recent: the others would fill it.
//!
//! A slot is taken as the programs take one: with its RESERVED bit, which is among the words that they compare under the
//! lock before they take a slot themselves. They change single bytes there, so exchanging a whole word loses none of
//! theirs. The agent has no such lock: should a program pass that comparison while a slot is being taken here, the two
//! records become one that matches no packet.

use std::{
    mem::offset_of,
    sync::atomic::{AtomicU64, Ordering},
};

use proxy_common::{
    Port, PortOwners, Record,
    connection::{
        Ends, Home, Kept, LANES, RecordId, Seen,
        buckets::{self, REACH, SLOTS, byte},
    },
};

use super::{
    flow_table::{FlowTable, Found, Recent},
    mapped::Mapped,
};

/// The byte of a FLOW_TAGS word that says how far lookups must search, and of the second FLOW_USES word that counts the
/// records in other buckets.
const LAST: u32 = 7;
/// The word of a record with its check and with what was seen.
const SEEN: usize = Ends::WORDS - 1;
/// The word with the time of its creation and the endpoint's sequence number.
const ANSWER: usize = offset_of!(Record, origin.began) / 8;
const _: () = assert!(offset_of!(Record, origin.answer) == 8 * ANSWER + 4);
const _: () =
    assert!(offset_of!(Record, ends.check) == 8 * SEEN && offset_of!(Record, ends.seen) == 8 * SEEN + 4);

/// The new table of connections, and its source ports.
#[derive(Debug)]
pub(crate) struct Destination<'a> {
    pub(crate) flows: &'a FlowTable,
    pub(crate) owners: &'a Mapped<PortOwners>,
}

/// What became of the records of the old table.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Moved {
    /// Records that were not in the new one.
    pub(crate) moved: usize,
    /// Those that found no room there.
    pub(crate) lost: usize,
}

impl Destination<'_> {
    /// Takes over the records of `from`, and what changed in those that it has; if `from` is longer, those
    /// alone that are kept or recent.
    pub(crate) fn take_from(&self, from: &FlowTable, recent: Recent) -> Moved {
        self.take(from, |found| self.is_wanted(from, found, recent))
    }

    /// The same when connections begin here already: those that have ended may have made way for others.
    pub(crate) fn take_late_from(&self, from: &FlowTable, recent: Recent) -> Moved {
        self.take(from, |found| !found.record.ends.seen.ended() && self.is_wanted(from, found, recent))
    }

    fn is_wanted(&self, from: &FlowTable, found: &Found, recent: Recent) -> bool {
        self.flows.room() >= from.room() || found.kept || recent.includes(from.second_of(found.id))
    }

    /// A client's port may be used again meanwhile: of two connections that cannot be beside each other the newer one counts.
    fn take(&self, from: &FlowTable, is_wanted: impl Fn(&Found) -> bool) -> Moved {
        let mut outcome = Moved::default();
        from.visit(|found| {
            let Record { ends, origin } = &found.record;
            let rivals =
                || self.flows.of_same_client(ends).filter(|its| is_rival(&its.record, &found.record));
            if let Some(there) = rivals().find(|its| is_same(&its.record, &found.record)) {
                self.flows.merge(found, &there);
            } else if is_wanted(found) && rivals().all(|its| its.record.origin.began < origin.began) {
                rivals().for_each(|older| self.flows.remove(&older));
                if self.put(found, from.second_of(found.id)) {
                    outcome.moved += 1;
                } else {
                    outcome.lost += 1;
                }
            }
        });
        outcome
    }

    /// Gives up records that are gone from `from`, and were there at `second`, when the first were moved: connections that
    /// ended in between.
    pub(crate) fn give_up_ended(&self, from: &FlowTable, second: u32) {
        self.flows.visit(|found| {
            let is_copy = found.record.origin.began < second && found.record.origin.seconds < second;
            if is_copy && found.kept && from.find(&found.record.ends).is_none() {
                self.flows.release(found);
            }
        });
    }

    /// Puts a record into a free slot of its client.
    fn put(&self, found: &Found, second: u8) -> bool {
        let home = self.flows.home(&found.record.ends);
        for turn in 0..REACH {
            if let Some(id) = self.flows.take_slot(home.bucket(turn), turn != 0) {
                if turn != 0 {
                    self.flows.lead_on(home.bucket(0), turn);
                }
                return self.fill(id, home, found, second);
            }
        }
        false
    }

    /// Fills a slot that was taken.
    fn fill(&self, id: RecordId, home: Home, found: &Found, second: u8) -> bool {
        let (bucket, slot) = (id.bucket(), id.slot());
        self.flows.records().store(id.index(), &found.record);
        let owned = !found.record.ends.has_source_port() || self.own(id, &found.record);
        if owned {
            set_byte(self.flows.uses().word(bucket, 0), slot, second);
            set_byte(self.flows.tags().word(bucket, 0), slot, home.tag());
        }
        let confirmed = if owned && found.kept { Kept::CONFIRMED } else { 0 };
        change(self.flows.uses().word(bucket, 1), |word| {
            with_byte(word, slot, byte(word, slot) & Kept::AWAY | confirmed)
        });
        owned
    }

    /// Makes a record the owner of its source port.
    fn own(&self, id: RecordId, record: &Record) -> bool {
        let Port { number, .. } = record.origin.source_port;
        let Ends { endpoint, endpoint_port, protocol, .. } = record.ends;
        let index = u32::from(number);
        let free = |tags: u64| (0..LANES).find(|lane| byte(tags, *lane) == 0);
        let Some(lane) = free(self.owners.word(index, 0).load(Ordering::Acquire)) else { return false };
        let (half, shift) = (1 + lane as usize / 2, 32 * (lane % 2));
        change(self.owners.word(index, half), |word| {
            word & !(u64::from(u32::MAX) << shift) | u64::from(id.0) << shift
        });
        let tag = PortOwners::tag(&endpoint, endpoint_port, protocol);
        set_byte(self.owners.word(index, 0), lane, tag);
        true
    }
}

/// Whether two connections of a client cannot be beside each other: they have the same frontend, or the same endpoint from the
/// client's own port.
fn is_rival(one: &Record, other: &Record) -> bool {
    let from_own_port = !one.ends.has_source_port() && !other.ends.has_source_port();
    one.ends.asked() == other.ends.asked() || (from_own_port && one.ends.to() == other.ends.to())
}

/// Whether two records are of one connection.
fn is_same(one: &Record, other: &Record) -> bool {
    let identity = |record: &Record| (record.ends.check, record.origin.check, record.origin.began);
    identity(one) == identity(other)
}

impl FlowTable {
    fn home(&self, ends: &Ends) -> Home {
        self.home_of(&ends.client, ends.client_port, ends.protocol)
    }

    /// The second of a record's last packet, modulo 256.
    fn second_of(&self, id: RecordId) -> u8 {
        byte(self.uses().word(id.bucket(), 0).load(Ordering::Acquire), id.slot())
    }

    /// The record of a connection between these.
    fn find(&self, ends: &Ends) -> Option<Found> {
        self.of_same_client(ends).find(|found| found.record.ends.check == ends.check)
    }

    /// The records of the same client, where lookups find them.
    fn of_same_client(&self, ends: &Ends) -> impl Iterator<Item = Found> + use<'_> {
        let (home, its) = (self.home(ends), (ends.client, ends.client_port, ends.protocol));
        let reach = byte(self.tags().word(home.bucket(0), 0).load(Ordering::Acquire), LAST);
        let has_tag = move |bucket: &u32| {
            let tags = self.tags().word(*bucket, 0).load(Ordering::Acquire);
            buckets::lanes_with(tags, home.tag()) & buckets::SLOT_LANES != 0
        };
        let is_its = move |found: &Found| {
            let Ends { client, client_port, protocol, .. } = found.record.ends;
            (client, client_port, protocol) == its
        };
        let buckets = (0..=u32::from(reach)).map(move |turn| home.bucket(turn)).filter(has_tag);
        buckets.flat_map(|bucket| self.in_bucket(bucket)).filter(is_its)
    }

    /// Frees a slot, as programs do.
    fn remove(&self, found: &Found) {
        let (bucket, slot) = (found.id.bucket(), found.id.slot());
        change(self.uses().word(bucket, 1), |word| with_byte(word, slot, byte(word, slot) & Kept::AWAY));
        set_byte(self.tags().word(bucket, 0), slot, 0);
    }

    /// Adds what was seen of a connection to its record here.
    fn merge(&self, found: &Found, there: &Found) {
        let (from, to) = (&found.record.ends.seen, &there.record.ends.seen);
        let merged = Seen {
            client: from.client | to.client,
            endpoint: from.endpoint | to.endpoint,
            reset: if to.reset == 0 { from.reset } else { to.reset },
            route: if to.route == Seen::UNDECIDED { from.route } else { to.route },
        };
        if merged != *to {
            let bits = u64::from(u32::from_le_bytes(bytemuck::cast(merged)));
            let check = u64::from(there.record.ends.check);
            let before = u64::from(u32::from_le_bytes(bytemuck::cast(*to))) << 32 | check;
            // If a packet changes it at this moment, that is newer.
            let _ = self.records().word(there.id.index(), SEEN).compare_exchange(
                before,
                bits << 32 | check,
                Ordering::AcqRel,
                Ordering::Acquire,
            );
        }
        let (from, to) = (&found.record.origin, &there.record.origin);
        if to.answer == 0 && from.answer != 0 {
            let before = u64::from(to.began);
            let after = u64::from(from.answer) << 32 | before;
            let word = self.records().word(there.id.index(), ANSWER);
            let _ = word.compare_exchange(before, after, Ordering::AcqRel, Ordering::Acquire);
        }
        if found.kept && !there.kept {
            let slot = there.id.slot();
            change(self.uses().word(there.id.bucket(), 1), |word| {
                with_byte(word, slot, byte(word, slot) | Kept::CONFIRMED)
            });
        }
    }

    /// Reserves a free slot of a bucket, if there is one.
    fn take_slot(&self, bucket: u32, away: bool) -> Option<RecordId> {
        let away = if away { Kept::AWAY } else { 0 };
        let (tags, uses) = (self.tags().word(bucket, 0), self.uses().word(bucket, 1));
        let mut kept = uses.load(Ordering::Acquire);
        loop {
            let now = tags.load(Ordering::Acquire);
            let slot = (0..SLOTS).find(|slot| byte(now, *slot) == 0 && !Kept::keeps(byte(kept, *slot)))?;
            let taken = with_byte(kept, slot, Kept::RESERVED | away);
            match uses.compare_exchange_weak(kept, taken, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(RecordId::new(bucket, slot)),
                Err(other) => kept = other,
            }
        }
    }

    /// Lets lookups in a home go on to the bucket of this turn, where a record of it is.
    fn lead_on(&self, home: u32, turn: u32) {
        change(self.uses().word(home, 1), |word| with_byte(word, LAST, byte(word, LAST).saturating_add(1)));
        let reach = u8::try_from(turn).unwrap_or(u8::MAX);
        change(self.tags().word(home, 0), |word| with_byte(word, LAST, byte(word, LAST).max(reach)));
    }
}

fn with_byte(word: u64, lane: u32, value: u8) -> u64 {
    word & !(0xff << (8 * lane)) | u64::from(value) << (8 * lane)
}

fn set_byte(word: &AtomicU64, lane: u32, value: u8) {
    change(word, |word| with_byte(word, lane, value));
}

fn change(word: &AtomicU64, to: impl Fn(u64) -> u64) {
    let _ = word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| Some(to(word)));
}

#[cfg(test)]
mod tests;
