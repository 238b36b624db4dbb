//! Creating a connection record.

use bytemuck::must_cast;

use super::{
    buckets::{self, Home, Kept, REACH, RecordId, SLOT_LANES},
    find::{self, Drafted, Request},
    life::{Clock, Rival, is_live},
    ports::{PortOwners, give_port},
    record::{Ends, Origin, Seen, Tuple},
    table::{Flows, Reservation},
};
use crate::{
    address::{Address, Port},
    endpoint::Endpoint,
    event::Happening,
};

/// The source port range for masquerading (SNAT).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SourcePorts {
    /// The first port.
    pub first: u16,
    /// Number of ports.
    pub count: u16,
}

/// Which of the source ports a set of programs draws: while connections move from the tables of one set to those of another,
/// either cannot see what the other draws, so each has its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum PortShare {
    /// All.
    All = 0,
    /// The lower half: the programs that are replaced.
    Lower = 1,
    /// The upper half: those that replace them.
    Upper = 2,
}

impl SourcePorts {
    /// A share of these ports, by the number of a [`PortShare`]. A single port has no halves.
    #[inline(always)]
    #[must_use]
    pub const fn share(self, share: u32) -> Self {
        const LOWER: u32 = PortShare::Lower as u32;
        const UPPER: u32 = PortShare::Upper as u32;
        let half = self.count / 2;
        match share {
            _ if half == 0 => self,
            LOWER => Self { count: half, ..self },
            UPPER => Self { first: self.first + half, count: self.count - half },
            _ => self,
        }
    }
}

/// A record under construction, with working data. Kernel programs keep it in a map: their stack is small.
#[derive(Clone, Copy, Debug)]
pub struct Draft {
    /// First half of the record.
    pub ends: Ends,
    /// Second half of the record.
    pub origin: Origin,
    /// The current time.
    pub clock: Clock,
    /// The source ports to allocate from.
    pub ports: SourcePorts,
    /// Random bits, for the choice of a source port.
    pub random: u32,
    /// The candidate source port.
    pub(super) port: Port,
    /// The owners of the candidate port.
    pub(super) owners: PortOwners,
    /// First half of another record, read for comparison.
    pub(super) other: Ends,
    /// Second half of that other record.
    pub(super) other_origin: Origin,
    reservation: Reservation,
    pub(super) tuple: Tuple,
}

/// The outcome of creating a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Begun {
    /// The connection has a record.
    Connection,
    /// No slot is free or evictable.
    NoRoom,
    /// No source port is free.
    NoPort,
    /// The node has no address to masquerade with. Returned by the caller, which looks up the address.
    NoAddress,
    /// Another processor is creating a record of this client, possibly this one. The client has to retransmit.
    Busy,
}

impl Draft {
    /// An empty draft.
    pub const fn new() -> Self {
        let ends: Ends = must_cast([0_u64; Ends::WORDS]);
        let origin: Origin = must_cast([0_u64; Origin::WORDS]);
        Self {
            ends,
            origin,
            clock: Clock { seconds: 1, udp_timeout: 0 },
            ports: SourcePorts { first: 0, count: 0 },
            random: 0,
            port: Port::NONE,
            owners: must_cast([0_u64; PortOwners::WORDS]),
            other: ends,
            other_origin: origin,
            reservation: Reservation {
                home: 0,
                record_id: RecordId::NONE,
                home_tags: 0,
                tags: 0,
                kept: 0,
                old_home: 0,
                reach: 0,
                tag: 0,
                second: 0,
                padding: 0,
            },
            tuple: must_cast([0_u64; 5]),
        }
    }

    /// Fills in the record of a connection that begins with `packet`, which arrived at `device`, and gets this
    /// endpoint.
    #[inline(always)]
    pub fn set(&mut self, packet: &Tuple, endpoint: &Endpoint, flags: u8, device: u32) {
        let Endpoint { address, port, id, service, generation, flags: _ } = *endpoint;
        let seconds = self.clock.seconds;
        self.ends = Ends {
            client: packet.source,
            frontend: packet.destination,
            endpoint: address,
            client_port: packet.source_port,
            frontend_port: packet.destination_port,
            endpoint_port: port,
            protocol: packet.protocol,
            flags: flags | Ends::PENDING,
            check: 0,
            seen: Seen { client: Seen::PACKET, ..Seen { client: 0, endpoint: 0, reset: 0, route: 0 } },
        };
        self.ends.check = self.ends.checksum();
        self.origin = Origin {
            source: Address::ANY_V6,
            source_port: Port::NONE,
            generation,
            endpoint: id,
            service,
            check: 0,
            seconds,
            device,
            began: seconds,
            answer: 0,
            padding: [0; 4],
        };
    }
}

impl Default for Draft {
    fn default() -> Self {
        Self::new()
    }
}

/// Creates and publishes the record of a draft. The caller has freed any earlier record of this client and
/// frontend. `try_port` is [`super::ports::try_port`]. Kernel programs call the three steps themselves, to save
/// stack.
///
/// If the client port has a live connection to the same endpoint through another frontend, the packets of both would be the
/// same there: this one gets another port ([`Ends::REMAPPED`]).
#[inline(always)]
pub fn begin<F: Flows>(flows: &F, draft: &mut Draft, try_port: impl Fn(&mut Draft, Rival) -> bool) -> Begun {
    let started = start(flows, draft);
    if started != Begun::Connection {
        return started;
    }
    let has_port = !draft.ends.has_source_port() || give_port(draft, try_port);
    finish(flows, draft, has_port)
}

/// Reserves a slot and writes the record of the draft, which lookups still ignore.
#[inline(always)]
pub fn start<F: Flows>(flows: &F, draft: &mut Draft) -> Begun {
    // Each step is called from here, not from the step before it: nested calls would need more stack.
    let hash = buckets::hash(&draft.ends.client, draft.ends.client_port, draft.ends.protocol, flows.seed());
    let record_id = match reserve(flows, draft, hash) {
        Chosen::Slot => draft.reservation.record_id,
        Chosen::Busy => return Begun::Busy,
        Chosen::None => return Begun::NoRoom,
    };
    draft.origin.check = draft.origin.checksum(draft.ends.check);
    flows.write_origin(record_id, &draft.origin);
    flows.write_ends(record_id, &draft.ends);
    Begun::Connection
}

/// Publishes the record of a [started](start) draft. If it needs a source port and got none (`has_port`), it is
/// published as ended.
#[inline(always)]
pub fn finish<F: Flows>(flows: &F, draft: &mut Draft, has_port: bool) -> Begun {
    let record_id = draft.reservation.record_id;
    if !has_port {
        flows.see_reset(record_id, Seen::GIVEN_UP);
    }
    draft.ends.flags &= !Ends::PENDING;
    flows.publish(record_id, draft.ends.flags);
    if has_port { Begun::Connection } else { Begun::NoPort }
}

impl Draft {
    /// Whether the other record, of the same client, is that of a live connection.
    #[inline(always)]
    fn meets(&self, flows: &impl Flows, record_id: RecordId) -> bool {
        is_live(flows, record_id, &self.other, &self.other_origin, self.clock, Rival::SameClient)
    }

    /// Lets the client's packets have a source port, whatever their address.
    #[inline(always)]
    const fn remap(&mut self) {
        self.ends.flags |= Ends::REMAPPED;
        self.ends.check = self.ends.checksum();
        if !self.ends.is_masqueraded() {
            self.origin.source = self.ends.client;
        }
    }

    /// Tells that a connection lost its slot to this one, if one did: its record is still there.
    #[inline(always)]
    fn tell_evicted(&self, flows: &impl Flows) {
        let Reservation { record_id, tags, .. } = self.reservation;
        if buckets::byte(tags, record_id.slot()) != 0 {
            flows.happened(record_id, &self.other, Happening::Evicted);
        }
    }

    /// A scratch tuple that the caller may use until [`begin`].
    #[inline(always)]
    pub const fn scratch(&mut self) -> &mut Tuple {
        &mut self.tuple
    }

    /// The tuple for which another record is sought, and the buffer for the first half of that record.
    #[inline(always)]
    pub const fn others(&mut self) -> (&Tuple, &mut Ends) {
        (&self.tuple, &mut self.other)
    }

    /// The id of the record, after [`start`].
    #[inline(always)]
    pub const fn record_id(&self) -> RecordId {
        self.reservation.record_id
    }
}

/// Whether a live connection of this client has the tuple of the draft at the endpoint, through another frontend: from
/// the same port, or from another one that was replaced by it. An ended one is freed.
#[inline(never)]
fn collides(flows: &impl Flows, draft: &mut Draft, hash: u64) -> bool {
    draft.tuple = Tuple::new(draft.ends.protocol, draft.ends.from(), draft.ends.to());
    let record_id = flows.find_anywhere::<Drafted>(&draft.tuple, hash, &mut draft.other);
    if record_id.is_some() {
        if flows.read_origin(record_id, draft.other.check, &mut draft.other_origin)
            && draft.meets(flows, record_id)
        {
            return true;
        }
        flows.free(record_id, draft.other.check);
    }
    let record_id = flows.find_remapped(draft);
    if record_id.is_some() {
        if draft.meets(flows, record_id) {
            return true;
        }
        flows.free(record_id, draft.other.check);
    }
    false
}

/// See [`Flows::find_remapped`].
#[inline(always)]
pub fn find_remapped(flows: &impl Flows, draft: &mut Draft) -> RecordId {
    let Draft { ends, tuple, owners, other, other_origin, .. } = draft;
    *tuple = Tuple::new(ends.protocol, ends.to(), ends.from());
    find::find_remapped(flows, tuple, owners, other, other_origin)
}

/// The outcome of the search for a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Chosen {
    Slot,
    Busy,
    None,
}

/// Attempts to reserve a slot: another processor may take the chosen slot first, and an ended record may be freed.
const TRIES: u32 = 3;

#[inline(always)]
fn reserve(flows: &impl Flows, draft: &mut Draft, hash: u64) -> Chosen {
    let mut turn = 0;
    while turn < TRIES {
        let chosen = choose(flows, draft, hash);
        if chosen != Chosen::Slot {
            return chosen;
        }
        // Another processor may have created this record, or the other one, before `choose` read its words.
        if !draft.ends.is_remapped() && collides(flows, draft, hash) {
            draft.remap();
        }
        draft.tuple = Tuple::new(draft.ends.protocol, draft.ends.from(), draft.ends.asked());
        if flows.find_anywhere::<Request>(&draft.tuple, hash, &mut draft.other).is_some() {
            return Chosen::Busy;
        }
        if flows.reserve(&draft.reservation) {
            draft.tell_evicted(flows);
            return Chosen::Slot;
        }
        turn += 1;
    }
    Chosen::Busy
}

/// Buckets to search for a free or long unused slot before a recently used one is evicted.
const NEAR: u32 = 4;

/// Chooses a slot. Notes it in the draft, with the words that the choice depends on.
#[inline(always)]
fn choose(flows: &impl Flows, draft: &mut Draft, hash: u64) -> Chosen {
    let home = Home::new(hash, flows.regions());
    let reservation = &mut draft.reservation;
    reservation.home = home.bucket(0);
    reservation.old_home = reservation.home;
    reservation.home_tags = flows.tags(reservation.home);
    reservation.record_id = RecordId::NONE;
    reservation.tag = home.tag();
    reservation.second = draft.clock.second();
    let mut turn = 0;
    while turn < REACH {
        match flows.consider(draft, hash, turn) {
            Considered::Busy => return Chosen::Busy,
            Considered::Best => break,
            Considered::More => {}
        }
        turn += 1;
    }
    if !draft.reservation.record_id.is_some() {
        return Chosen::None;
    }
    let Reservation { record_id, kept, .. } = draft.reservation;
    if buckets::byte(kept, record_id.slot()) & Kept::AWAY != 0 && flows.read_ends(record_id, &mut draft.other)
    {
        let Ends { client, client_port, protocol, .. } = &draft.other;
        let old = buckets::hash(client, *client_port, *protocol, flows.seed());
        draft.reservation.old_home = Home::new(old, flows.regions()).bucket(0);
    }
    Chosen::Slot
}

/// How the search for a slot continues after one bucket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Considered {
    /// Other buckets may have a better slot.
    More = 0,
    /// The slot noted in the draft is to be taken.
    Best = 1,
    /// Another processor is creating a record of the same client.
    Busy = 2,
}

/// Looks for a slot in bucket `turn` of the search order. Notes it in the draft, with the words that it depends
/// on.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "below 16")]
pub fn consider(flows: &impl Flows, draft: &mut Draft, hash: u64, turn: u32) -> Considered {
    const RESERVED: u64 = Kept::RESERVED as u64 * 0x0101_0101_0101_0101;
    let reservation = &mut draft.reservation;
    let bucket = Home::new(hash, flows.regions()).bucket(turn);
    let (tags, uses) = (flows.tags(bucket), flows.uses(bucket));
    // A record of this client is being written.
    if buckets::lanes_with(tags, reservation.tag) & SLOT_LANES & ((uses[1] & RESERVED) << 6) != 0 {
        return Considered::Busy;
    }
    let found = buckets::least_missed(tags, uses, reservation.second, |word| flows.opaque(word));
    if let Some((slot, is_free)) = found
        && (is_free || !reservation.record_id.is_some())
    {
        reservation.record_id = RecordId::new(bucket, slot);
        reservation.tags = tags;
        reservation.kept = uses[1];
        reservation.reach = turn as u8;
        if is_free {
            return Considered::Best;
        }
    }
    if turn + 1 >= NEAR && reservation.record_id.is_some() { Considered::Best } else { Considered::More }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_halves_of_the_source_ports_are_all_of_them_and_apart() {
        for (count, lower, upper) in [(2, 1, 1), (5, 2, 3), (16_384, 8_192, 8_192)] {
            let ports = SourcePorts { first: 1_024, count };
            assert_eq!(ports.share(PortShare::All as u32), ports);
            assert_eq!(ports.share(PortShare::Lower as u32), SourcePorts { count: lower, ..ports });
            let rest = SourcePorts { first: 1_024 + lower, count: upper };
            assert_eq!(ports.share(PortShare::Upper as u32), rest);
        }
        let one = SourcePorts { first: 1_024, count: 1 };
        assert_eq!([one.share(PortShare::Lower as u32), one.share(PortShare::Upper as u32)], [one; 2]);
    }
}
