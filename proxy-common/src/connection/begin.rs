//! Making a record.

use bytemuck::must_cast;

use super::{
    buckets::{self, Home, Kept, Place, REACH, SLOT_LANES},
    find::{Drafted, Request},
    life::{Clock, Rival, is_live},
    ports::{PortOwners, give_port},
    record::{Ends, Origin, Seen, Tuple},
    table::{Flows, Reservation},
};
use crate::{
    address::{Address, Port},
    endpoint::Endpoint,
};

/// The source ports that connections are masqueraded with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SourcePorts {
    /// The first one.
    pub first: u16,
    /// How many there are.
    pub count: u16,
}

/// A record that is to begin, and what is needed meanwhile: kernel programs have it in a map, their stack is short.
#[derive(Clone, Copy, Debug)]
pub struct Draft {
    /// Its first half.
    pub ends: Ends,
    /// Its second half.
    pub origin: Origin,
    /// When it is.
    pub clock: Clock,
    /// The source ports.
    pub ports: SourcePorts,
    /// Random bits.
    pub random: u32,
    /// Which source port is tried.
    pub(super) port: Port,
    /// Its client.
    pub(super) owners: PortOwners,
    /// Another record that is looked at.
    pub(super) other: Ends,
    /// Its second half.
    pub(super) other_origin: Origin,
    reservation: Reservation,
    tuple: Tuple,
}

/// The outcome of beginning a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Begun {
    /// It has begun.
    Connection,
    /// Its packets would be indistinguishable from those of another connection of the same client.
    Colliding,
    /// No slot is free or evictable.
    NoRoom,
    /// No source port is free.
    NoPort,
    /// No address to masquerade it with; the caller that looks one up returns this.
    NoAddress,
    /// Another processor is creating a record of this client, maybe the same one: the client's retransmission will
    /// find it.
    Busy,
}

impl Draft {
    /// Empty.
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
                place: Place::NONE,
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

    /// Of a connection that begins with a packet to a frontend, which came in by `device`, and gets this endpoint.
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

/// Begins the connection of a draft, which has no record: what is left of an earlier one between the same two has been freed.
/// `try_port` is [`super::ports::try_port`]. A kernel program, whose stack is short, takes the three steps by itself.
///
/// It does not begin if the client has a live connection, through another frontend, whose packets would be the same ones at the
/// endpoint.
#[inline(always)]
pub fn begin<F: Flows>(flows: &F, draft: &mut Draft, try_port: impl Fn(&mut Draft, Rival) -> bool) -> Begun {
    let started = start(flows, draft);
    if started != Begun::Connection {
        return started;
    }
    let has_port = !draft.ends.is_masqueraded() || give_port(draft, try_port);
    finish(flows, draft, has_port)
}

/// Reserves a slot for the draft, and writes its record, which no lookup finds yet.
#[inline(always)]
pub fn start<F: Flows>(flows: &F, draft: &mut Draft) -> Begun {
    // Each step is a function that is called from here, and not from the one before it: the stack is short.
    let hash = buckets::hash(&draft.ends.client, draft.ends.client_port, draft.ends.protocol, flows.seed());
    if !give_way(flows, draft, hash) {
        return Begun::Colliding;
    }
    let place = match reserve(flows, draft, hash) {
        Chosen::Slot => draft.reservation.place,
        Chosen::Busy => return Begun::Busy,
        Chosen::None => return Begun::NoRoom,
    };
    draft.origin.check = draft.origin.checksum(draft.ends.check);
    flows.write_origin(place, &draft.origin);
    flows.write_ends(place, &draft.ends);
    Begun::Connection
}

/// Publishes the record of a draft that was [started](start); without a port that it needs, as one that has ended.
#[inline(always)]
pub fn finish<F: Flows>(flows: &F, draft: &mut Draft, has_port: bool) -> Begun {
    let place = draft.reservation.place;
    if !has_port {
        flows.see_reset(place, Seen::GIVEN_UP);
    }
    draft.ends.flags &= !Ends::PENDING;
    flows.publish(place, draft.ends.flags);
    if has_port { Begun::Connection } else { Begun::NoPort }
}

impl Draft {
    /// A tuple that is free for any use until [`begin`].
    #[inline(always)]
    pub const fn scratch(&mut self) -> &mut Tuple {
        &mut self.tuple
    }

    /// The tuple that another record is sought for, and where it is left.
    #[inline(always)]
    pub const fn others(&mut self) -> (&Tuple, &mut Ends) {
        (&self.tuple, &mut self.other)
    }

    /// Where the record is, after [`begin`].
    #[inline(always)]
    pub const fn place(&self) -> Place {
        self.reservation.place
    }
}

/// Frees what is left of an earlier connection of the client, through another frontend, whose packets would be the same ones at
/// the endpoint. `false`: it is live.
#[inline(never)]
fn give_way(flows: &impl Flows, draft: &mut Draft, hash: u64) -> bool {
    draft.tuple = Tuple::new(draft.ends.protocol, draft.ends.from(), draft.ends.to());
    let place = flows.find_anywhere::<Drafted>(&draft.tuple, hash, &mut draft.other);
    if place.is_some() {
        if flows.read_origin(place, draft.other.check, &mut draft.other_origin)
            && is_live(flows, place, &draft.other, &draft.other_origin, draft.clock, Rival::SameClient)
        {
            return false;
        }
        flows.free(place, draft.other.check);
    }
    draft.tuple.lead_to(draft.ends.asked());
    true
}

/// Whether there is a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Chosen {
    Slot,
    Busy,
    None,
}

/// How often a slot is chosen: another processor may have taken it meanwhile.
const TRIES: u32 = 2;

#[inline(always)]
fn reserve(flows: &impl Flows, draft: &mut Draft, hash: u64) -> Chosen {
    let mut turn = 0;
    while turn < TRIES {
        let chosen = choose(flows, draft, hash);
        if chosen != Chosen::Slot {
            return chosen;
        }
        // Somebody may have begun the same connection before the words were read that the slot was chosen by.
        if flows.find_anywhere::<Request>(&draft.tuple, hash, &mut draft.other).is_some() {
            return Chosen::Busy;
        }
        if flows.reserve(&draft.reservation) {
            return Chosen::Slot;
        }
        turn += 1;
    }
    Chosen::Busy
}

/// In how many buckets a slot is sought that is free, or was not used lately, before one is taken that was.
const NEAR: u32 = 4;

/// Chooses a slot, and notes in the draft by what.
#[inline(always)]
fn choose(flows: &impl Flows, draft: &mut Draft, hash: u64) -> Chosen {
    let home = Home::new(hash, flows.regions());
    let reservation = &mut draft.reservation;
    reservation.home = home.bucket(0);
    reservation.old_home = reservation.home;
    reservation.home_tags = flows.tags(reservation.home);
    reservation.place = Place::NONE;
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
    if !draft.reservation.place.is_some() {
        return Chosen::None;
    }
    let Reservation { place, kept, .. } = draft.reservation;
    if buckets::byte(kept, place.slot()) & Kept::AWAY != 0 && flows.read_ends(place, &mut draft.other) {
        let Ends { client, client_port, protocol, .. } = &draft.other;
        let old = buckets::hash(client, *client_port, *protocol, flows.seed());
        draft.reservation.old_home = Home::new(old, flows.regions()).bucket(0);
    }
    Chosen::Slot
}

/// What becomes of the search for a slot after a look at one bucket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Considered {
    /// Others may have a better one.
    More = 0,
    /// The one in the draft is to be taken.
    Best = 1,
    /// Another processor is creating a record of the same client.
    Busy = 2,
}

/// Looks for a slot in the bucket of this turn, and notes in the draft by what it was chosen.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "below 16")]
pub fn consider(flows: &impl Flows, draft: &mut Draft, hash: u64, turn: u32) -> Considered {
    const RESERVED: u64 = Kept::RESERVED as u64 * 0x0101_0101_0101_0101;
    let reservation = &mut draft.reservation;
    let bucket = Home::new(hash, flows.regions()).bucket(turn);
    let (tags, uses) = (flows.tags(bucket), flows.uses(bucket));
    // Records of this client that are being made.
    if buckets::lanes_with(tags, reservation.tag) & SLOT_LANES & ((uses[1] & RESERVED) << 6) != 0 {
        return Considered::Busy;
    }
    let found = buckets::least_missed(tags, uses, reservation.second, |word| flows.opaque(word));
    if let Some((slot, is_free)) = found
        && (is_free || !reservation.place.is_some())
    {
        reservation.place = Place::new(bucket, slot);
        reservation.tags = tags;
        reservation.kept = uses[1];
        reservation.reach = turn as u8;
        if is_free {
            return Considered::Best;
        }
    }
    if turn + 1 >= NEAR && reservation.place.is_some() { Considered::Best } else { Considered::More }
}
