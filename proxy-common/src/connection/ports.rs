//! SOURCE_PORTS: the connections that own a source port. An endpoint occurs at most once in an element, so the map
//! is the port allocation, too: there is no second record of it that could disagree.
//!
//! An owner counts only if its record names the port. The lanes of evicted records are reused.

use bytemuck::{Pod, Zeroable, must_cast};

use super::{
    begin::Draft,
    buckets::{self, RecordId},
    find::Drafted,
    life::{Rival, is_live},
    record::{Ends, Origin, Seen, Tuple},
    table::Flows,
};
use crate::{
    address::{Address, Port},
    select::scale,
};

/// A value of SOURCE_PORTS: the owners of a source port, each with another endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct PortOwners {
    /// For each lane, eight bits of the endpoint's hash; 0 if the lane is free.
    pub tags: [u8; LANES as usize],
    /// Zero.
    pub padding: [u8; 4],
    /// For each lane, the [`RecordId`] of the owner.
    pub record_ids: [u32; LANES as usize],
}

/// Lanes per element.
pub const LANES: u32 = 4;

impl PortOwners {
    /// Words per element.
    pub const WORDS: usize = 3;

    /// The word with the tags.
    #[inline(always)]
    pub const fn tags_word(&self) -> u64 {
        let [tags, ..]: [u64; Self::WORDS] = must_cast(*self);
        tags
    }

    /// The tag of an owner, from its endpoint; never 0.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "eight bits")]
    pub const fn tag(endpoint: &Address, port: Port, protocol: u8) -> u8 {
        let hash = buckets::hash(endpoint, port, protocol, 0x5851_f42d_4c95_7f2d);
        (1 + (((hash >> 20 & 0xff) * 255) >> 8)) as u8
    }

    /// The owner in a lane.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "one of two halves")]
    pub const fn record_id(&self, lane: u32) -> RecordId {
        let [_, low, high]: [u64; Self::WORDS] = must_cast(*self);
        // Not indexed: the compiler would add a bounds check.
        let pair = if lane < 2 { low } else { high };
        RecordId((pair >> (32 * (lane & 1))) as u32)
    }
}

/// Ports tried for one packet. If confirmed connections to the same endpoint use three quarters of all ports, one client in
/// a thousand finds none. A SYN is sent again, but a datagram is not.
const ATTEMPTS: u32 = 24;
/// From this attempt on, a port is taken from an unconfirmed owner: in UDP, once it has been silent for a while.
const GIVEN_UP: u32 = 6;

/// Finds a source port that no other connection to the endpoint of the draft uses. The slot of the draft is
/// already reserved. `try_port` is [`try_port`].
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "below the count of ports")]
pub fn give_port(draft: &mut Draft, try_port: impl Fn(&mut Draft, Rival) -> bool) -> bool {
    let (random, count) = (draft.random, u32::from(draft.ports.count));
    let mut index = scale(random, count);
    let stride = 1 + scale(random.rotate_left(16), count.wrapping_sub(1));
    let mut attempt = 0;
    while attempt < ATTEMPTS {
        draft.port = Port::new(draft.ports.first.wrapping_add(index as u16));
        let rival = if attempt < GIVEN_UP { Rival::Patient } else { Rival::Impatient };
        if try_port(draft, rival) {
            return true;
        }
        index += if attempt < ATTEMPTS / 2 { stride } else { 1 };
        if index >= count {
            index -= count;
        }
        attempt += 1;
    }
    false
}

/// Takes the candidate port if no other connection to the endpoint of the draft uses it, nor (`is_taken`) a socket
/// of the node. If it is to replace the client's, the client may not use it either. The record names the port before SOURCE_PORTS names the record: other processors then never take
/// the new owner for a stale one.
#[inline(always)]
pub fn try_port<F: Flows>(
    flows: &F,
    draft: &mut Draft,
    rival: Rival,
    is_taken: impl Fn(&Draft) -> bool,
) -> bool {
    let id = draft.record_id();
    let lane = choose_lane(flows, id, draft, rival);
    if lane >= LANES || (draft.ends.is_remapped() && is_of_client(flows, draft)) {
        return false;
    }
    draft.origin.source_port = draft.port;
    draft.origin.check = draft.origin.checksum(draft.ends.check);
    flows.write_origin(id, &draft.origin);
    !is_taken(draft) && flows.own(draft.port, &draft.owners, lane, draft.tag(), id)
}

impl Draft {
    #[inline(always)]
    const fn tag(&self) -> u8 {
        PortOwners::tag(&self.ends.endpoint, self.ends.endpoint_port, self.ends.protocol)
    }

    /// Reads an owner's record, and returns whether it still uses the candidate port.
    #[inline(always)]
    fn look_at(&mut self, flows: &impl Flows, owner: RecordId) -> bool {
        let Self { other, other_origin, port, .. } = self;
        flows.read_ends(owner, other)
            && other.has_source_port()
            && flows.read_origin(owner, other.check, other_origin)
            && other_origin.source_port.number == port.number
    }
}

/// The highest bits of the four lanes in the word with the tags.
const OWNER_LANES: u64 = 0x8080_8080;

/// Owners with the tag of the endpoint to examine.
const ALIKE: u32 = 2;

/// Lanes of other endpoints to examine for a stale owner.
const LOOKS: u32 = 3;

/// The lane of the candidate port that the draft may take; [`LANES`] for none. The element on which the choice is
/// based is left in `draft.owners`.
#[inline(always)]
fn choose_lane(flows: &impl Flows, id: RecordId, draft: &mut Draft, rival: Rival) -> u32 {
    if !flows.owners(draft.port, &mut draft.owners) {
        return LANES;
    }
    let tags = draft.owners.tags_word();
    let mut lane = LANES;
    let mut candidates = buckets::lanes_with(tags, draft.tag());
    // Not worth examining more owners: there are other ports.
    if candidates.count_ones() > ALIKE {
        return LANES;
    }
    let mut count = 0;
    while candidates != 0 && count < ALIKE {
        count += 1;
        let first = candidates & candidates.wrapping_neg();
        let owner = draft.owners.record_id(buckets::lane(first));
        if draft.look_at(flows, owner) && owner.0 != id.0 {
            let Draft { ends, other, other_origin, clock, .. } = &*draft;
            if is_same_endpoint(ends, other) {
                if is_live(flows, owner, other, other_origin, *clock, rival) {
                    return LANES;
                }
                // The packets of this record must no longer leave with the port: mark it as ended.
                flows.see_reset(owner, Seen::GIVEN_UP);
                lane = buckets::lane(first);
            }
        } else {
            lane = buckets::lane(first);
        }
        candidates ^= first;
    }
    if lane != LANES {
        return lane;
    }
    let free = buckets::lanes_with(tags, 0) & OWNER_LANES;
    if free != 0 {
        return buckets::lane(free & free.wrapping_neg());
    }
    let mut look = 0;
    while look < LOOKS {
        let lane = draft.random.wrapping_add(look) % LANES;
        let owner = draft.owners.record_id(lane);
        if !draft.look_at(flows, owner) {
            return lane;
        }
        look += 1;
    }
    LANES
}

/// Whether the client has a connection to the same endpoint from the candidate port.
#[inline(always)]
fn is_of_client(flows: &impl Flows, draft: &mut Draft) -> bool {
    let Draft { ends, tuple, other, port, .. } = draft;
    *tuple = Tuple::new(ends.protocol, (ends.client, *port), ends.to());
    flows.find_anywhere::<Drafted>(tuple, tuple.source_hash(flows.seed()), other).is_some()
}

#[inline(always)]
fn is_same_endpoint(ends: &Ends, other: &Ends) -> bool {
    ends.protocol == other.protocol
        && ends.endpoint_port.number == other.endpoint_port.number
        && ends.endpoint.words() == other.endpoint.words()
}

/// Reads the second half of a record, whose first half is `ends`, to `origin`. `false` if it is gone, or if the connection
/// has ended and lost its source port, or given it up: late packets must not leave with the source of another connection, and
/// their answers would not be taken for theirs.
#[inline(always)]
pub fn read_source(
    flows: &impl Flows,
    id: RecordId,
    ends: &Ends,
    origin: &mut Origin,
    owners: &mut PortOwners,
) -> bool {
    flows.read_origin(id, ends.check, origin)
        && ends.seen.reset != Seen::GIVEN_UP
        && (!ends.seen.ended() || has_port(flows, id, ends, origin.source_port, owners))
}

/// Whether a record still owns its source port.
#[inline(never)]
fn has_port(flows: &impl Flows, id: RecordId, ends: &Ends, port: Port, owners: &mut PortOwners) -> bool {
    if !flows.owners(port, owners) {
        return false;
    }
    // An earlier record in the same slot may have left a lane behind, but for another endpoint.
    let tag = PortOwners::tag(&ends.endpoint, ends.endpoint_port, ends.protocol);
    let mut lane = 0;
    while lane < LANES {
        if owners.record_id(lane).0 == id.0 && buckets::byte(owners.tags_word(), lane) == tag {
            return true;
        }
        lane += 1;
    }
    false
}

const _: () = assert!(size_of::<PortOwners>() == 24);
