//! SOURCE_PORTS: whose answers come to a source port. An endpoint occurs at most once in an element, so this is the allocation
//! of ports too: there is no other record of it that could disagree.
//!
//! An owner is believed only if its record says the same: what is left of records that were evicted is taken over by whoever
//! comes.

use bytemuck::{Pod, Zeroable, must_cast};

use super::{
    begin::Draft,
    buckets::{self, Place},
    life::{Rival, is_live},
    record::{Ends, Seen},
    table::Flows,
};
use crate::{
    address::{Address, Port},
    select::scale,
};

/// A value of SOURCE_PORTS: who may use a source port, each towards another endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct PortOwners {
    /// Lane by lane: eight bits of the endpoint's hash; 0 for a free one.
    pub tags: [u8; LANES as usize],
    /// Zero.
    pub padding: [u8; 4],
    /// Lane by lane: the [`Place`] of the record.
    pub places: [u32; LANES as usize],
}

/// Lanes of an element.
pub const LANES: u32 = 4;

impl PortOwners {
    /// Words of an element.
    pub const WORDS: usize = 3;

    /// The word with the tags.
    #[inline(always)]
    pub const fn tags_word(&self) -> u64 {
        let [tags, ..]: [u64; Self::WORDS] = must_cast(*self);
        tags
    }

    /// What an owner is tagged with, by its endpoint; never 0.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "eight bits")]
    pub const fn tag(endpoint: &Address, port: Port, protocol: u8) -> u8 {
        let hash = buckets::hash(endpoint, port, protocol, 0x5851_f42d_4c95_7f2d);
        (1 + (((hash >> 20 & 0xff) * 255) >> 8)) as u8
    }

    /// The record of a lane.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "one of two halves")]
    pub const fn place(&self, lane: u32) -> Place {
        let [_, low, high]: [u64; Self::WORDS] = must_cast(*self);
        // Without an index that a bounds check would be made for.
        let pair = if lane < 2 { low } else { high };
        Place((pair >> (32 * (lane & 1))) as u32)
    }
}

/// How many ports are tried. Where three quarters of them are confirmed connections' to the same endpoint, one in ten finds none
/// in so many, and is tried again with its client's next packet.
const ATTEMPTS: u32 = 8;
/// From which attempt on a port is taken whose owner is not confirmed.
const GIVEN_UP: u32 = 6;

/// Finds a port for the draft, whose slot is reserved: one that no other connection to its endpoint has. `try_port` is
/// [`try_port`].
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

/// Takes the port that is tried, if no other connection to the draft's endpoint has it, and `is_taken` says that no socket of
/// the node has it either. The record names the port before the port names the record, so that others never take it
/// for one that is left over.
#[inline(always)]
pub fn try_port<F: Flows>(
    flows: &F,
    draft: &mut Draft,
    rival: Rival,
    is_taken: impl Fn(&Draft) -> bool,
) -> bool {
    let place = draft.place();
    let lane = choose_lane(flows, place, draft, rival);
    if lane >= LANES {
        return false;
    }
    draft.origin.source_port = draft.port;
    draft.origin.check = draft.origin.checksum(draft.ends.check);
    flows.write_origin(place, &draft.origin);
    !is_taken(draft) && flows.own(draft.port, &draft.owners, lane, draft.tag(), place)
}

impl Draft {
    #[inline(always)]
    const fn tag(&self) -> u8 {
        PortOwners::tag(&self.ends.endpoint, self.ends.endpoint_port, self.ends.protocol)
    }

    /// Reads an owner's record, and returns whether it holds the tried port.
    #[inline(always)]
    fn look_at(&mut self, flows: &impl Flows, owner: Place) -> bool {
        let Self { other, other_origin, port, .. } = self;
        flows.read_ends(owner, other)
            && other.is_masqueraded()
            && flows.read_origin(owner, other.check, other_origin)
            && other_origin.source_port.number == port.number
    }
}

/// The highest bits of the lanes in the word with the tags.
const OWNER_LANES: u64 = 0x8080_8080;

/// How many owners with the tag of the draft's endpoint are looked at.
const ALIKE: u32 = 2;

/// How many lanes of others are looked at, for one whose owner has gone.
const LOOKS: u32 = 3;

/// Which lane of the port that is tried the draft may have; [`LANES`] for none. What it was chosen by is left in
/// `draft.owners`.
#[inline(always)]
fn choose_lane(flows: &impl Flows, place: Place, draft: &mut Draft, rival: Rival) -> u32 {
    if !flows.owners(draft.port, &mut draft.owners) {
        return LANES;
    }
    let tags = draft.owners.tags_word();
    let mut lane = LANES;
    let mut candidates = buckets::lanes_with(tags, draft.tag());
    let mut count = 0;
    while candidates != 0 {
        // More of one tag are not worth the while: there are other ports.
        if count == ALIKE {
            return LANES;
        }
        count += 1;
        let first = candidates & candidates.wrapping_neg();
        let owner = draft.owners.place(buckets::lane(first));
        if draft.look_at(flows, owner) && owner.0 != place.0 {
            let Draft { ends, other, other_origin, clock, .. } = &*draft;
            if is_same_endpoint(ends, other) {
                if is_live(flows, owner, other, other_origin, *clock, rival) {
                    return LANES;
                }
                // It has been given up: whoever finds it knows.
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
        let owner = draft.owners.place(lane);
        if !draft.look_at(flows, owner) {
            return lane;
        }
        look += 1;
    }
    LANES
}

#[inline(always)]
fn is_same_endpoint(ends: &Ends, other: &Ends) -> bool {
    ends.protocol == other.protocol
        && ends.endpoint_port.number == other.endpoint_port.number
        && ends.endpoint.words() == other.endpoint.words()
}

/// Whether a record still has its port. One that has ended, or was given up, may have lost it: what comes late of it must not
/// leave with a source that is somebody else's.
#[inline(never)]
pub fn has_port(flows: &impl Flows, place: Place, ends: &Ends, port: Port, owners: &mut PortOwners) -> bool {
    if !flows.owners(port, owners) {
        return false;
    }
    // An earlier record of the same slot may have left an entry too, but for another endpoint.
    let tag = PortOwners::tag(&ends.endpoint, ends.endpoint_port, ends.protocol);
    let mut lane = 0;
    while lane < LANES {
        if owners.place(lane).0 == place.0 && buckets::byte(owners.tags_word(), lane) == tag {
            return true;
        }
        lane += 1;
    }
    false
}

const _: () = assert!(size_of::<PortOwners>() == 24);
