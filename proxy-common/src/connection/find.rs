//! Lookup of the record of a packet.

use bytemuck::must_cast_ref;

use super::{
    buckets::{self, Home, REACH, RecordId, SLOT_LANES, SLOTS},
    ports::{LANES, PortOwners},
    record::{Ends, Origin, Seen, Tuple},
    table::Flows,
};

/// A kind of packet whose record is found by the client: which end of the packet is the client, and which end of
/// the record its peer.
pub trait Way {
    /// Whether the packet goes to the client.
    const TO_CLIENT: bool;
    /// Index of the first word of the peer's address in [`Ends`].
    const PEER: usize;
    /// The bits of word [`Ends::PORTS`] that identify the connection.
    const PORTS: u64;
    /// The kind as a value.
    const KIND: Kind;

    /// The expected value of these bits.
    #[inline(always)]
    fn ports(tuple: &Tuple) -> u64 {
        let (client, peer) = if Self::TO_CLIENT {
            (tuple.destination_port, tuple.source_port)
        } else {
            (tuple.source_port, tuple.destination_port)
        };
        let shift = if Self::PEER == FRONTEND { 16 } else { 32 };
        u64::from(client.number) | u64::from(peer.number) << shift | u64::from(tuple.protocol) << 48
    }

    /// The client's hash.
    #[inline(always)]
    fn hash(tuple: &Tuple, seed: u64) -> u64 {
        if Self::TO_CLIENT { tuple.destination_hash(seed) } else { tuple.source_hash(seed) }
    }
}

/// The kinds of packets whose record is found by the client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Kind {
    /// [`Request`].
    Request,
    /// [`Leaving`].
    Leaving,
    /// [`Drafted`].
    Drafted,
    /// [`Answer`].
    Answer,
}

const FRONTEND: usize = 2;
const ENDPOINT: usize = 4;
// A record with PENDING set, which is still being written, never matches. Towards the endpoint a remapped connection has
// another port than the client's.
const FRONTEND_PORTS: u64 = 0x00ff_0000_ffff_ffff | (Ends::PENDING as u64) << 56;
const ENDPOINT_PORTS: u64 = 0x00ff_ffff_0000_ffff | ((Ends::PENDING | Ends::REMAPPED) as u64) << 56;

/// At ingress, from the client to the frontend.
#[derive(Clone, Copy, Debug)]
pub struct Request;
/// At egress, from the client to the endpoint.
#[derive(Clone, Copy, Debug)]
pub struct Leaving;
/// The same tuple, for the lookup of a [draft](super::Draft).
#[derive(Clone, Copy, Debug)]
pub struct Drafted;
/// At egress, from the endpoint to the client.
#[derive(Clone, Copy, Debug)]
pub struct Answer;

impl Way for Request {
    const KIND: Kind = Kind::Request;
    const TO_CLIENT: bool = false;
    const PEER: usize = FRONTEND;
    const PORTS: u64 = FRONTEND_PORTS;
}

impl Way for Leaving {
    const KIND: Kind = Kind::Leaving;
    const TO_CLIENT: bool = false;
    const PEER: usize = ENDPOINT;
    const PORTS: u64 = ENDPOINT_PORTS;
}

impl Way for Drafted {
    const KIND: Kind = Kind::Drafted;
    const TO_CLIENT: bool = false;
    const PEER: usize = ENDPOINT;
    const PORTS: u64 = ENDPOINT_PORTS;
}

impl Way for Answer {
    const KIND: Kind = Kind::Answer;
    const TO_CLIENT: bool = true;
    const PEER: usize = ENDPOINT;
    const PORTS: u64 = ENDPOINT_PORTS;
}

impl Ends {
    /// The bits in which a record and a packet of kind `W` differ.
    #[inline(always)]
    pub fn differs<W: Way>(words: &[u64; Self::WORDS], tuple: &Tuple) -> u64 {
        let asked: &[u64; 5] = tuple.words();
        let (client, peer) = if W::TO_CLIENT { (2, 0) } else { (0, 2) };
        (words[0] ^ asked[client])
            | (words[1] ^ asked[client + 1])
            | (words[W::PEER] ^ asked[peer])
            | (words[W::PEER + 1] ^ asked[peer + 1])
            | ((words[Self::PORTS] ^ W::ports(tuple)) & W::PORTS)
    }

    /// Whether `tuple` is that of a packet of this record, of kind `W`.
    #[inline(always)]
    pub fn is<W: Way>(&self, tuple: &Tuple) -> bool {
        Self::differs::<W>(must_cast_ref(self), tuple) == 0
    }
}

/// Finds the record of a packet and copies its first half to `ends`, which is undefined otherwise.
///
/// Almost every packet needs only the home bucket, and a packet without a record only one word of it.
#[inline(always)]
pub fn find<W: Way>(flows: &impl Flows, tuple: &Tuple, ends: &mut Ends) -> RecordId {
    let hash = W::hash(tuple, flows.seed());
    let home = Home::new(hash, flows.regions());
    let bucket = home.bucket(0);
    let tags = flows.tags(bucket);
    let candidates = buckets::lanes_with(tags, home.tag()) & SLOT_LANES;
    let is_near = buckets::byte(tags, SLOTS) == 0;
    if candidates == 0 && is_near {
        return RecordId::NONE;
    }
    let first = candidates & candidates.wrapping_neg();
    if candidates != 0 {
        let id = RecordId::new(bucket, buckets::lane(first));
        if flows.read::<W>(id, tuple, ends) {
            return id;
        }
        if candidates == first && is_near {
            return RecordId::NONE;
        }
    }
    flows.find_anywhere::<W>(tuple, hash, ends)
}

/// Looks for a record in all buckets that can hold those of the client with this hash. `look` searches the bucket
/// of one step.
#[inline(always)]
pub fn find_anywhere(flows: &impl Flows, hash: u64, look: impl Fn(u32) -> RecordId) -> RecordId {
    let home = Home::new(hash, flows.regions()).bucket(0);
    let reach = u32::from(buckets::byte(flows.tags(home), SLOTS));
    let mut turn = 0;
    while turn < REACH && turn <= reach {
        let id = look(turn);
        if id.is_some() {
            return id;
        }
        turn += 1;
    }
    RecordId::NONE
}

/// Finds the record of a packet in the bucket of step `turn`.
#[inline(always)]
pub fn find_in_bucket<W: Way>(
    flows: &impl Flows,
    tuple: &Tuple,
    hash: u64,
    turn: u32,
    ends: &mut Ends,
) -> RecordId {
    let home = Home::new(hash, flows.regions());
    let bucket = home.bucket(turn);
    let mut candidates = buckets::lanes_with(flows.tags(bucket), home.tag()) & SLOT_LANES;
    // The count shows the verifier that the loop ends.
    let mut count = 0;
    while count < SLOTS && candidates != 0 {
        let first = candidates & candidates.wrapping_neg();
        let id = RecordId::new(bucket, buckets::lane(first));
        if flows.read::<W>(id, tuple, ends) {
            return id;
        }
        candidates ^= first;
        count += 1;
    }
    RecordId::NONE
}

/// Finds the record of a reply to a SNAT source. Copies both halves of the record to `ends` and `origin`.
#[inline(always)]
pub fn find_by_source(
    flows: &impl Flows,
    tuple: &Tuple,
    owners: &mut PortOwners,
    ends: &mut Ends,
    origin: &mut Origin,
) -> RecordId {
    find_by_port::<false>(flows, tuple, owners, ends, origin)
}

/// Finds the record of a [remapped](Ends::REMAPPED) connection by an answer to its client, as it is between ingress and
/// egress. Copies both halves of the record to `ends` and `origin`.
#[inline(always)]
pub fn find_remapped(
    flows: &impl Flows,
    tuple: &Tuple,
    owners: &mut PortOwners,
    ends: &mut Ends,
    origin: &mut Origin,
) -> RecordId {
    find_by_port::<true>(flows, tuple, owners, ends, origin)
}

/// Finds the record that owns the destination port of an answer.
#[inline(always)]
fn find_by_port<const REMAPPED: bool>(
    flows: &impl Flows,
    tuple: &Tuple,
    owners: &mut PortOwners,
    ends: &mut Ends,
    origin: &mut Origin,
) -> RecordId {
    if !flows.owners(tuple.destination_port, owners) {
        return RecordId::NONE;
    }
    let tag = PortOwners::tag(&tuple.source, tuple.source_port, tuple.protocol);
    let mut candidates = buckets::lanes_with(owners.tags_word(), tag);
    let mut count = 0;
    while count < LANES && candidates != 0 {
        let first = candidates & candidates.wrapping_neg();
        let id = owners.record_id(buckets::lane(first));
        if flows.read_ends(id, ends)
            && comes_from(ends, tuple)
            && (if REMAPPED { ends.is_remapped() } else { has_left(ends) })
            && flows.read_origin(id, ends.check, origin)
            && origin.source_port.number == tuple.destination_port.number
            && (if REMAPPED { &ends.client } else { &origin.source }).words() == tuple.destination.words()
        {
            return id;
        }
        candidates ^= first;
        count += 1;
    }
    RecordId::NONE
}

/// Whether a packet comes from the endpoint of a connection that still has a port. (One that gave it up may still be
/// named by a lane: of an earlier record in the same slot.)
#[inline(always)]
fn comes_from(ends: &Ends, tuple: &Tuple) -> bool {
    ends.seen.reset != Seen::GIVEN_UP
        && ends.flags & Ends::PENDING == 0
        && ends.protocol == tuple.protocol
        && ends.endpoint_port.number == tuple.source_port.number
        && ends.endpoint.words() == tuple.source.words()
}

/// Whether packets of a connection left with our SNAT source. (If the CNI masqueraded them first, replies to its source
/// may arrive at the same port.)
#[inline(always)]
const fn has_left(ends: &Ends) -> bool {
    ends.is_masqueraded() && ends.seen.client & Seen::LEFT != 0
}
