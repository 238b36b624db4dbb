//! FLOW_TAGS and FLOW_USES: which slots of FLOWS can hold a client's records, and which of them may be evicted.
//! Arithmetic on words, for the kernel programs, the agent and the host tests alike.
//!
//! FLOWS is an array of records in **buckets** of seven slots. A keyed hash of a client (address, port, protocol)
//! selects its home bucket, where every lookup for the client begins. The bucket's word of FLOW_TAGS has one byte
//! of the hash for each slot. One load from this array, which stays in the processor's cache, thus shows that a
//! packet has no record.
//!
//! A client that uses one port for many frontends needs more than seven slots, and several clients can share a
//! home bucket. The records that do not fit go to up to fifteen other buckets of the same **region** (64 buckets,
//! one lock), in an order that depends on the client. The eighth byte of the home bucket's word says how far
//! lookups must search; it is almost always 0.

use bytemuck::{Pod, Zeroable, must_cast};

use super::record::Tuple;
use crate::{
    address::{Address, Port},
    peer::bpf_spin_lock,
    select::scale,
};

/// Slots per bucket.
pub const SLOTS: u32 = 7;
/// Buckets per region; a power of two.
pub const REGION: u32 = 64;
/// Number of buckets that can hold the records of one client. Further connections are refused.
pub const REACH: u32 = 16;

/// A value of FLOW_TAGS, for the bucket with the same index: one aligned word.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct FlowTags {
    /// For each slot, eight bits of the client's hash; 0 if the slot is free.
    pub tags: [u8; SLOTS as usize],
    /// Number of further buckets that can hold records whose home is this bucket.
    pub reach: u8,
}

/// A value of FLOW_USES, for the bucket with the same index: two aligned words.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct FlowUses {
    /// For each slot, the second of the last packet, modulo 256.
    pub seconds: [u8; SLOTS as usize],
    /// The slot that was reserved last.
    pub latest: u8,
    /// For each slot, its [`Kept`] bits.
    pub kept: [u8; SLOTS as usize],
    /// Number of records in other buckets whose home is this bucket; stays at 255 once it was that high.
    pub away: u8,
}

/// Bits of [`FlowUses::kept`], which protect a slot from eviction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kept;

impl Kept {
    /// The record's connection is confirmed.
    pub const CONFIRMED: u8 = 1;
    /// The record is being written.
    pub const RESERVED: u8 = 2;
    /// The record's home is another bucket. Does not protect the slot.
    pub const AWAY: u8 = 4;

    /// Whether these bits protect the slot.
    #[inline(always)]
    pub const fn keeps(bits: u8) -> bool {
        bits & (Self::CONFIRMED | Self::RESERVED) != 0
    }
}

/// The id of a record: eight times its bucket, plus its slot there.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[repr(transparent)]
pub struct RecordId(pub u32);

impl RecordId {
    /// No record.
    pub const NONE: Self = Self(u32::MAX);

    /// The id of the record in a slot.
    #[inline(always)]
    pub const fn new(bucket: u32, slot: u32) -> Self {
        Self(bucket << 3 | slot)
    }

    /// The bucket.
    #[inline(always)]
    pub const fn bucket(self) -> u32 {
        self.0 >> 3
    }

    /// The slot, below [`SLOTS`].
    #[inline(always)]
    pub const fn slot(self) -> u32 {
        self.0 & 7
    }

    /// Index into FLOWS.
    #[inline(always)]
    pub const fn index(self) -> u32 {
        self.bucket() * SLOTS + self.slot()
    }

    /// Whether this is the id of a record, not [`RecordId::NONE`].
    #[inline(always)]
    pub const fn is_some(self) -> bool {
        self.0 != Self::NONE.0
    }
}

/// A value of FLOW_LOCKS: held while a slot of the region or a source port changes hands.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct FlowLock {
    /// The lock.
    pub lock: bpf_spin_lock,
    /// Zero.
    pub padding: u32,
}

/// Number of locks; a power of two.
pub const FLOW_LOCKS: u32 = 256;

/// A keyed 64-bit hash of a client. The halves of the address, mixed with the seed, are multiplied with each
/// other: without the seed nobody can choose addresses or ports that share a bucket.
#[inline(always)]
pub const fn hash(client: &Address, port: Port, protocol: u8, seed: u64) -> u64 {
    const A: u64 = 0x9e37_79b9_7f4a_7c15;
    const B: u64 = 0xc2b2_ae3d_27d4_eb4f;
    let [a, b]: [u64; 2] = must_cast(client.bytes);
    let rest = port.number as u64 | (protocol as u64) << 16;
    let address = (a ^ seed).wrapping_mul(b ^ seed.rotate_left(23) ^ A);
    let sum = (address ^ address >> 32).wrapping_add((rest ^ seed.rotate_left(41)).wrapping_mul(A));
    let mixed = (sum ^ sum >> 29).wrapping_mul(B);
    mixed ^ mixed >> 32
}

/// The buckets that can hold the records of a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Home {
    hash: u64,
    /// The first bucket of the region.
    base: u32,
}

#[expect(clippy::cast_possible_truncation, reason = "parts of the hash")]
impl Home {
    /// The buckets of the client with this [`hash`], in a table of `regions` regions.
    #[inline(always)]
    pub const fn new(hash: u64, regions: u32) -> Self {
        Self { hash, base: scale(hash as u32, regions) * REGION }
    }

    /// The tag of the client in FLOW_TAGS; never 0.
    #[inline(always)]
    pub const fn tag(self) -> u8 {
        (1 + (((self.hash >> 32 & 0xff) * 255) >> 8)) as u8
    }

    /// The bucket to search in step `turn`, the home bucket in step 0. The order repeats after [`REGION`] steps.
    #[inline(always)]
    pub const fn bucket(self, turn: u32) -> u32 {
        let (first, stride) = ((self.hash >> 40) as u32, (self.hash >> 46) as u32 | 1);
        self.base + (first.wrapping_add(turn.wrapping_mul(stride)) & (REGION - 1))
    }

    /// The region of these buckets, which selects the lock.
    #[inline(always)]
    pub const fn region(self) -> u32 {
        self.base / REGION
    }
}

/// The lowest bit of each of the eight byte lanes.
const LANES: u64 = 0x0101_0101_0101_0101;
/// The highest bit of each lane.
const HIGH: u64 = LANES << 7;

/// The highest bit of each lane of `word` that equals `byte`.
#[inline(always)]
pub const fn lanes_with(word: u64, byte: u8) -> u64 {
    let differs = word ^ (byte as u64 * LANES);
    !(((differs & !HIGH) + !HIGH) | differs) & HIGH
}

/// The highest bits of the seven slot lanes in a word of FLOW_TAGS.
pub const SLOT_LANES: u64 = HIGH >> 8;

/// The number of the lane whose highest bit is `bit`.
#[inline(always)]
pub const fn lane(bit: u64) -> u32 {
    // `bit - 1` has the lowest bit of each lane up to this one set; the multiplication counts them.
    ((((bit - 1) & LANES).wrapping_mul(LANES) >> 56) as u32).wrapping_sub(1) & 7
}

/// The byte in one lane of a word.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "one byte")]
pub const fn byte(word: u64, lane: u32) -> u8 {
    (word >> (lane * 8)) as u8
}

/// Seconds of idleness after which an unconfirmed slot is evicted at once. For a younger one, the search first
/// looks at other buckets. Below 256, and longer than a handshake takes.
const LATELY: u8 = 64;

/// The slot of a bucket to use at second `now`: a free one, else the least recently used (as far as the seconds
/// modulo 256 tell), else the one reserved longest ago. `None` if all are protected. The boolean says whether the
/// slot is free or long unused.
///
/// Arithmetic instead of branches: the verifier walks the code after a branch once for each way to get there.
/// `opaque` keeps the compiler from restoring the branches.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "below 8, and one byte")]
pub fn least_missed(
    tags: u64,
    [seconds, kept]: [u64; 2],
    now: u8,
    opaque: impl Fn(u64) -> u64,
) -> Option<(u32, bool)> {
    const KEPT: u64 = (Kept::CONFIRMED | Kept::RESERVED) as u64;
    let is_zero = |word: u64| opaque((word | opaque(word.wrapping_neg())) >> 63) ^ 1;
    let latest = seconds >> 56 & 7;
    let mut best = 0_u64;
    let mut slot = 0;
    while slot < SLOTS {
        let idle = u64::from(now.wrapping_sub(byte(seconds, slot)));
        let free = is_zero(byte(tags, slot).into());
        // Age in ring order: the slot after `latest` is the oldest, `latest` the youngest.
        let ahead = u64::from(slot + SLOTS - 1).wrapping_sub(latest);
        let wraps = is_zero(ahead / u64::from(SLOTS)) ^ 1;
        let age = u64::from(SLOTS) - 1 - ahead.wrapping_sub(u64::from(SLOTS) * wraps);
        let worth = (1 << 12 | free << 11 | idle << 3 | age & 7) << 3 | u64::from(slot);
        let worth = worth & is_zero(u64::from(byte(kept, slot)) & KEPT).wrapping_neg();
        best ^= (best ^ worth) & opaque(best.wrapping_sub(worth) >> 63).wrapping_neg();
        slot += 1;
    }
    if best == 0 {
        return None;
    }
    let (is_free, idle) = (best >> 14 & 1, (best >> 6) as u8);
    Some(((best & 7) as u32, is_free == 1 || idle >= LATELY))
}

impl Tuple {
    /// [`hash`] of the source.
    #[inline(always)]
    pub const fn source_hash(&self, seed: u64) -> u64 {
        hash(&self.source, self.source_port, self.protocol, seed)
    }

    /// [`hash`] of the destination.
    #[inline(always)]
    pub const fn destination_hash(&self, seed: u64) -> u64 {
        hash(&self.destination, self.destination_port, self.protocol, seed)
    }
}

const _: () = assert!(size_of::<FlowTags>() == 8 && size_of::<FlowUses>() == 16);
const _: () = assert!(REGION.is_power_of_two() && FLOW_LOCKS.is_power_of_two());

#[cfg(test)]
mod tests {
    extern crate std;

    use std::{collections::BTreeSet, vec::Vec};

    use super::*;

    /// Compares with a loop over the bytes.
    #[test]
    fn lanes_are_told_apart() {
        let mut word = 1_u64;
        for _ in 0..10_000 {
            word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let sparse = word & word.rotate_left(17) & word.rotate_left(31);
            for candidate in [word, sparse, sparse & 0x00ff_00ff_0000_ffff] {
                for wanted in [0, 1, byte(candidate, 3), 0x80, 0xff] {
                    let found = lanes_with(candidate, wanted);
                    for index in 0..8 {
                        let is_it = byte(candidate, index) == wanted;
                        assert_eq!(found >> (8 * index + 7) & 1 == 1, is_it, "{candidate:x} {wanted:x}");
                    }
                    assert_eq!(found & !HIGH, 0);
                }
            }
        }
        for index in 0..8 {
            assert_eq!(lane(0x80 << (8 * index)), index);
        }
    }

    /// The order visits every bucket of the region once, and the tag is never 0.
    #[test]
    fn a_home_reaches_all_of_its_region() {
        for number in 0..1000_u16 {
            let hash = hash(&Address::from_v4([192, 0, 2, 1]), Port::new(number), 6, 0x1234_5678_9abc_def1);
            let home = Home::new(hash, 147);
            let buckets: BTreeSet<u32> = (0..REGION).map(|turn| home.bucket(turn)).collect();
            assert_eq!(buckets.len(), REGION as usize);
            assert!(buckets.iter().all(|bucket| bucket / REGION == home.region()));
            assert_ne!(home.tag(), 0);
        }
    }

    /// The hash spreads clients evenly over regions, buckets and tags.
    #[test]
    fn clients_spread_evenly() {
        let (mut homes, mut tags) = (std::vec![0_u32; 16 * 64], [0_u32; 256]);
        for number in 0..40_000_u32 {
            let client = Address::from_v4([10, 0, u8::try_from(number >> 12).expect("at most nine"), 1]);
            let hash = hash(&client, Port::new((number & 0xfff) as u16 + 32_768), 6, 0x9876_5432_10fe_dcb1);
            let home = Home::new(hash, 16);
            homes[home.bucket(0) as usize] += 1;
            tags[usize::from(home.tag())] += 1;
        }
        let worst = homes.iter().max().expect("not empty");
        assert!((39..90).contains(worst), "mean 39, most {worst}");
        let (least, most) =
            (tags[1..].iter().min().expect("not empty"), tags.iter().max().expect("not empty"));
        assert!(*least > 90 && *most < 350, "mean 157, {least} to {most}");
        assert_eq!(tags[0], 0);
    }

    fn words(uses: FlowUses) -> [u64; 2] {
        must_cast(uses)
    }

    #[test]
    fn a_free_slot_is_taken_before_an_old_one_and_an_old_one_before_a_new_one() {
        let taken = |tags: [u8; 7], seconds: [u8; 7], latest, kept, now| {
            let tags = must_cast(FlowTags { tags, reach: 0 });
            let [seconds, kept] = words(FlowUses { seconds, latest, kept, away: 0 });
            least_missed(tags, [seconds, kept], now, |word| word)
        };
        let full = [9; 7];
        assert_eq!(taken([9, 9, 0, 9, 9, 9, 9], [1; 7], 0, [0; 7], 1), Some((2, true)));
        assert_eq!(taken(full, [7, 5, 7, 7, 7, 7, 7], 0, [0; 7], 8), Some((1, false)));
        assert_eq!(taken(full, [7, 5, 7, 7, 7, 7, 7], 0, [0, 1, 0, 0, 0, 0, 0], 70), Some((1 + 1, false)));
        // Modulo 256: 250 was six seconds before 0.
        assert_eq!(taken(full, [250, 255, 0, 0, 0, 0, 0], 0, [0; 7], 0), Some((0, false)));
        assert_eq!(taken(full, [0; 7], 0, [1, 2, 1, 1, 1, 2, 1], 100), None);
        assert_eq!(taken(full, [0; 7], 0, [1, 2, 1, 5, 1, 4, 1], 100), Some((5, true)));
        // Within one second, in the order of reservation.
        let order: Vec<u32> =
            (0..7).map(|latest| taken(full, [3; 7], latest, [0; 7], 3).expect("a slot").0).collect();
        assert_eq!(order, [1, 2, 3, 4, 5, 6, 0]);
    }
}
