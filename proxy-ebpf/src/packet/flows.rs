//! FLOWS, as `proxy_common::nat` uses it.

use core::{arch::asm, mem::offset_of};

use aya_ebpf::helpers::{bpf_jiffies64, bpf_ktime_get_ns, bpf_spin_lock, bpf_spin_unlock};
use bytemuck::{must_cast, must_cast_ref};
use proxy_common::{
    Flow, FlowBucket, FlowKey, FlowSlot, FlowTag, FlowTags, Life,
    flow::{self, buckets},
    nat::{Clock, Flows},
    select::is_serving,
};

use crate::{
    config,
    tables::{FLOW_LOCKS, FLOW_TAGS, FLOWS, Maps},
};

/// The time as a processor knows it.
pub(super) struct Seconds {
    /// When it was looked at.
    pub(super) jiffies: u64,
    /// What it was, in seconds since boot.
    seconds: u32,
}

/// The time. Reading the clock takes longer than anything else but the lookups, so it is read once for each tick of the
/// kernel's (`bpf_jiffies64`, which the verifier makes a plain load), not for each packet.
#[inline(always)]
pub(super) fn clock(known: &mut Seconds) -> Clock {
    // SAFETY: helpers without pointers.
    let jiffies = unsafe { bpf_jiffies64() };
    if known.jiffies != jiffies || known.seconds == 0 {
        // SAFETY: as above.
        let nanoseconds = unsafe { bpf_ktime_get_ns() };
        known.jiffies = jiffies;
        known.seconds = (nanoseconds / 1_000_000_000) as u32;
        known.seconds |= u32::from(known.seconds == 0);
    }
    Clock { seconds: known.seconds, udp_timeout: config::udp_timeout() }
}

/// Word `word` of slot `slot`, which the verifier believes to be one of the bucket's.
///
/// # Safety
/// `bucket` leads to a value of FLOWS.
#[inline(always)]
unsafe fn word(bucket: *mut FlowBucket, slot: u64, word: usize) -> *mut u64 {
    // SAFETY: within the bucket.
    unsafe { bucket.cast::<u64>().add(within(slot) as usize * SLOT + word) }
}

/// The tag of slot `slot`.
///
/// # Safety
/// `tags` leads to a value of FLOW_TAGS.
#[inline(always)]
unsafe fn tag(tags: *mut FlowTags, slot: u64) -> *mut FlowTag {
    // SAFETY: within the tags.
    unsafe { tags.cast::<FlowTag>().add(within(slot) as usize) }
}

/// The number of a slot in its bucket, which the compiler must not know to be one already: the verifier would not.
#[inline(always)]
fn within(slot: u64) -> u64 {
    let mut slot = slot;
    // SAFETY: it touches one register.
    unsafe { asm!("{0} &= 3", inout(reg) slot, options(nomem, nostack)) };
    slot
}

const SLOT: usize = size_of::<FlowSlot>() / 8;
const KEY: usize = size_of::<FlowKey>() / 8;
/// Which word of an element is its life.
const LIFE: usize = KEY + offset_of!(Flow, life) / 8;
/// Which word of an element has its check.
const CHECK: usize = KEY + offset_of!(Flow, check) / 8;
/// Where the word of a life has the bit of confirmed flows, which stands in the slot's tag instead.
const CONFIRMED: u32 = 32 + Life::CONFIRMED.trailing_zeros();

// What follows is arithmetic where one would write branches: the verifier walks what comes after a branch once for each
// way to get there, and there are eight slots.

/// A word that the compiler knows nothing of: else it sees a comparison in the arithmetic, and makes a branch of it.
#[inline(always)]
fn opaque(word: u64) -> u64 {
    let mut word = word;
    // SAFETY: it touches one register.
    unsafe { asm!("{0} += 0", inout(reg) word, options(nomem, nostack)) };
    word
}

/// 1 for 0, else 0.
#[inline(always)]
fn is_zero(word: u64) -> u64 {
    opaque((word | opaque(word.wrapping_neg())) >> 63) ^ 1
}

/// The greater of two words below 2^63.
#[inline(always)]
fn greater(a: u64, b: u64) -> u64 {
    a ^ ((a ^ b) & opaque(a.wrapping_sub(b) >> 63).wrapping_neg())
}

/// One of two words: the second for 1, the first for 0.
#[inline(always)]
const fn either(words: [u64; 2], second: u64) -> u64 {
    words[0] ^ ((words[0] ^ words[1]) & second.wrapping_neg())
}

/// A one in each of four lanes of sixteen bits.
const LANES: u64 = 0x0001_0001_0001_0001;

/// The tags of slots that may have a key. Slots are numbered from 0 to 7, four of them in each bucket.
struct Tags {
    /// Indexes of the buckets.
    buckets: [u32; 2],
    /// Their tags, in memory.
    places: [*mut FlowTags; 2],
    /// What is the key's in them.
    key: u16,
}

impl Tags {
    #[inline(always)]
    fn of(key: &FlowKey) -> Option<Self> {
        let hash = key.hash(config::flow_seed());
        let buckets = buckets(hash, config::flow_buckets());
        let [first, second] = buckets;
        let places = [FLOW_TAGS.get_ptr_mut(first)?, FLOW_TAGS.get_ptr_mut(second)?];
        Some(Self { buckets, places, key: FlowTag::of_key(hash) })
    }

    /// What they are now.
    #[inline(always)]
    fn read(&self) -> [u64; 2] {
        // SAFETY: both lead to values of FLOW_TAGS, which are aligned words.
        self.places.map(|place| unsafe { place.cast::<u64>().read_volatile() })
    }

    /// A bit for each slot that may have the key: the ninth of a lane for one of the first bucket, the tenth for one of the
    /// second.
    #[inline(always)]
    fn candidates(&self) -> u64 {
        const KEYS: u64 = FlowTag::KEY as u64 * LANES;
        // The sum has the next bit unless the lane was zero.
        let [first, second] = self
            .read()
            .map(|tags| !(((tags ^ (u64::from(self.key) * LANES)) & KEYS) + KEYS) & (KEYS + LANES));
        first | second << 1
    }

    /// The place of the slot with this one bit of [`Tags::candidates`].
    #[inline(always)]
    fn place(&self, bit: u64) -> u32 {
        const SECOND: u64 = ((FlowTag::KEY as u64 + 1) * LANES) << 1;
        let is = |of: u64| is_zero(bit & of) ^ 1;
        self.numbered(is(SECOND) << 2 | is(0xffff_ffff_0000_0000) << 1 | is(0xffff_0000_ffff_0000))
    }

    /// The place of a slot by its number.
    #[inline(always)]
    fn numbered(&self, number: u64) -> u32 {
        (either(self.buckets.map(u64::from), number >> 2) << 2 | number & 3) as u32
    }

    /// The number of the slot that is missed least at this second; `None` if none may be taken. Of two buckets the one
    /// with fewer confirmed flows, so that both fill alike (with the fuller one taken first half a table is full for
    /// one new flow in fifty); in it a slot without an element, else the one that was used least recently, as far as
    /// seconds modulo 64 tell. That of a confirmed flow never.
    #[inline(always)]
    fn least_missed(read: [u64; 2], seconds: u32) -> Option<u64> {
        let mut best = 0;
        let mut bucket = 0;
        while bucket < 2 {
            let tags = read[bucket];
            let kept = (((tags >> FlowTag::KEPT.trailing_zeros()) & LANES) * LANES) >> 48;
            let free = (FlowBucket::LEN as u64 - kept) << 8;
            let mut slot = 0;
            while slot < FlowBucket::LEN as u64 {
                let tag = tags >> (16 * slot) & 0xffff;
                let unused = is_zero(tag & u64::from(FlowTag::KEY));
                let idle = u64::from(seconds).wrapping_sub(tag >> FlowTag::SECOND) & FlowTag::SECONDS;
                let takeable = (tag >> FlowTag::KEPT.trailing_zeros()) ^ 1 | unused;
                let worth = free + (unused << 6 | idle);
                best = greater((worth << 3 | (bucket as u64) << 2 | slot) & takeable.wrapping_neg(), best);
                slot += 1;
            }
            bucket += 1;
        }
        if best == 0 { None } else { Some(best & 7) }
    }
}

/// What a slot's key and this one differ in.
///
/// # Safety
/// `slot` leads to a slot of FLOWS.
#[inline(always)]
unsafe fn differs(slot: *mut u64, key: &[u64; KEY]) -> u64 {
    let mut differs = 0;
    let mut number = 0;
    while number < KEY {
        // SAFETY: the caller's promise. Volatile, both: a loop would keep the key on the stack, which is short.
        differs |= unsafe { slot.add(number).read_volatile() ^ (&raw const key[number]).read_volatile() };
        number += 1;
    }
    differs
}

/// Which slot of FLOWS: four times the index of its bucket, and its number there.
pub(super) type Place = u32;

/// The slot at a place.
#[inline(always)]
fn slot_at(place: Place) -> Option<*mut u64> {
    let bucket = FLOWS.get_ptr_mut(place >> 2)?;
    // SAFETY: it leads to a value of FLOWS.
    Some(unsafe { word(bucket, place.into(), 0) })
}

/// The slot that has the key, if one does.
#[inline(always)]
fn find_slot(key: &FlowKey) -> Option<(Place, *mut u64)> {
    let tags = Tags::of(key)?;
    let candidates = tags.candidates();
    if candidates == 0 {
        return None;
    }
    let first = candidates & candidates.wrapping_neg();
    let place = tags.place(first);
    let slot = slot_at(place)?;
    // SAFETY: a slot of FLOWS.
    if unsafe { differs(slot, must_cast_ref(key)) } == 0 {
        return Some((place, slot));
    }
    // Another key with this tag, which one in sixty lookups meets.
    if candidates == first {
        return None;
    }
    let place = some(place_of(key))?;
    Some((place, slot_at(place)?))
}

/// No place.
const NOWHERE: u64 = u64::MAX;

/// A place that a function returned.
#[inline(always)]
fn some(place: u64) -> Option<Place> {
    if place == NOWHERE { None } else { Some(place as Place) }
}

/// Two places, for a function.
#[inline(always)]
fn packed(places: Option<[Place; 2]>) -> u64 {
    match places {
        Some([one, other]) => u64::from(one) | u64::from(other) << 32,
        None => NOWHERE,
    }
}

/// The place of the key among all slots that may have it, as a function of its own.
#[inline(never)]
fn place_of(key: &FlowKey) -> u64 {
    let Some(tags) = Tags::of(key) else { return NOWHERE };
    let mut candidates = tags.candidates();
    let mut turn = 0;
    while candidates != 0 && turn < 2 * FlowBucket::LEN as u64 {
        let first = candidates & candidates.wrapping_neg();
        let place = tags.place(first);
        let Some(slot) = slot_at(place) else { return NOWHERE };
        // SAFETY: a slot of FLOWS.
        if opaque(unsafe { differs(slot, must_cast_ref(key)) }) == 0 {
            return place.into();
        }
        candidates ^= first;
        // Not unrolled.
        turn = opaque(turn + 1);
    }
    NOWHERE
}

/// The element in a slot.
#[inline(always)]
fn read(place: Place, slot: *mut u64, key: &FlowKey) -> Option<(Flow, Place)> {
    let tags = FLOW_TAGS.get_ptr_mut(place >> 2)?;
    // SAFETY: a slot of FLOWS, and its tag.
    let flow = unsafe {
        let words = [
            slot.add(KEY).read_volatile(),
            slot.add(KEY + 1).read_volatile(),
            slot.add(KEY + 2).read_volatile(),
            slot.add(KEY + 3).read_volatile(),
        ];
        let tag = tag(tags, place.into()).read_volatile();
        let kept = u64::from(tag.bits >> FlowTag::KEPT.trailing_zeros()) << CONFIRMED;
        let [a, b, c, d] = words;
        must_cast::<[u64; 5], Flow>([a, b, c, d, slot.add(LIFE).read_volatile() | kept])
    };
    // Somebody is writing it.
    if flow.check == flow.checksum(key) { Some((flow, place)) } else { None }
}

/// Writes an element into a slot, of which `at` is the tag, with what is the key's in it.
///
/// # Safety
/// `slot` leads to a slot of FLOWS, and `at` to its tag.
#[inline(always)]
unsafe fn write(slot: *mut u64, at: *mut FlowTag, tag: u16, key: &FlowKey, flow: &Flow) {
    let (words, element): (&[u64; KEY], &[u64; 5]) = (must_cast_ref(key), must_cast_ref(flow));
    let check = element[CHECK - KEY];
    // SAFETY: the caller's promise.
    unsafe {
        // Whoever reads it meanwhile finds that its check is not that of its key.
        slot.add(CHECK).write_volatile(!check);
        let mut word = 0;
        while word < KEY {
            slot.add(word).write_volatile(words[word]);
            word += 1;
        }
        slot.add(KEY).write_volatile(element[0]);
        slot.add(KEY + 1).write_volatile(element[1]);
        slot.add(KEY + 2).write_volatile(element[2]);
        slot.add(LIFE).write_volatile(element[4]);
        slot.add(CHECK).write_volatile(check);
        at.write_volatile(FlowTag::new(tag, flow.life));
    }
}

const _: () = assert!(CHECK == KEY + 3 && LIFE == KEY + 4);

/// A place for an element that is to be there from this second on, but neither of `spared`.
#[inline(never)]
fn choose(key: &FlowKey, seconds: u32, spared: u64) -> u64 {
    let Some(tags) = Tags::of(key) else { return NOWHERE };
    let mut read = tags.read();
    let mut turn = 0;
    while turn < 3 {
        let Some(number) = Tags::least_missed(read, seconds) else { return NOWHERE };
        let place = u64::from(tags.numbered(number));
        if place != spared & 0xffff_ffff && place != spared >> 32 {
            return place;
        }
        // As if it were a confirmed flow's.
        let kept = u64::from(FlowTag::KEPT) << (16 * (number & 3));
        let second = (number >> 2).wrapping_neg();
        read = [read[0] | kept & !second, read[1] | kept & second];
        turn = opaque(turn + 1);
    }
    NOWHERE
}

/// Writes an element at its place, unless that is a confirmed flow's by now; `old` is 1 for one that was this key's
/// already.
#[inline(never)]
fn put(key: &FlowKey, flow: &Flow, place: u64, old: u64) -> bool {
    let (Some(slot), Some(at)) = (slot_at(place as Place), FLOW_TAGS.get_ptr_mut(place as u32 >> 2)) else {
        return false;
    };
    let tag_of_key = FlowTag::of_key(key.hash(config::flow_seed()));
    // SAFETY: the slot's, and its tag's.
    unsafe {
        let at = tag(at, place);
        if old == 0 && at.read_volatile().is_kept() {
            return false;
        }
        write(slot, at, tag_of_key, key, flow);
    }
    true
}

/// Which slots may have the key.
#[inline(never)]
fn candidates_of(key: &FlowKey) -> u64 {
    match Tags::of(key) {
        Some(tags) => tags.candidates(),
        None => 0,
    }
}

/// Writes an element at a place, if the slots that may have its key are still those that were seen not to have it.
#[inline(never)]
fn claim(key: &FlowKey, flow: &Flow, place: u64, seen: u64) -> bool {
    let Some(tags) = Tags::of(key) else { return false };
    let lock = tags.buckets[0] & (flow::FLOW_LOCKS - 1);
    let (Some(slot), Some(at), Some(lock)) =
        (slot_at(place as Place), FLOW_TAGS.get_ptr_mut(place as u32 >> 2), FLOW_LOCKS.get_ptr_mut(lock))
    else {
        return false;
    };
    // SAFETY: the lock is the element's own, and given back on the only way on; the slot is one of FLOWS, with its tag.
    unsafe {
        let (lock, at) = ((&raw mut (*lock).lock).cast(), tag(at, place));
        bpf_spin_lock(lock);
        let free = tags.candidates() == seen && !at.read_volatile().is_kept();
        if free {
            write(slot, at, tags.key, key, flow);
        }
        bpf_spin_unlock(lock);
        free
    }
}

/// Replaces the life of an element; these bits of its tag stay.
#[inline(always)]
fn set_life(place: Place, life: Life, stays: u16) {
    let (Some(slot), Some(tags)) = (slot_at(place), FLOW_TAGS.get_ptr_mut(place >> 2)) else { return };
    let kept = Life { bits: life.bits & !Life::CONFIRMED, ..life };
    // SAFETY: an aligned word of FLOWS, and an aligned half of one of FLOW_TAGS. Should the slot have been given to
    // another flow, that one lives a little longer.
    unsafe {
        slot.add(LIFE).write_volatile(must_cast(kept));
        let tag = tag(tags, place.into());
        tag.write_volatile(FlowTag::new(tag.read_volatile().bits & stays, life));
    }
}

impl Flows for Maps {
    type Place = Place;

    #[inline(always)]
    fn find(&self, key: &FlowKey) -> Option<(Flow, Place)> {
        let (place, slot) = find_slot(key)?;
        read(place, slot, key)
    }

    #[inline(always)]
    fn find_rarely(&self, key: &FlowKey) -> Option<(Flow, Place)> {
        let place = some(place_of(key))?;
        read(place, slot_at(place)?, key)
    }

    #[inline(always)]
    fn has(&self, key: &FlowKey) -> bool {
        place_of(key) != NOWHERE
    }

    #[inline(always)]
    fn set_life(&self, place: Place, life: Life) {
        set_life(place, life, FlowTag::KEY | FlowTag::KEPT);
    }

    #[inline(always)]
    fn release(&self, place: Place, life: Life) {
        set_life(place, Life { bits: life.bits & !Life::CONFIRMED, ..life }, FlowTag::KEY);
    }

    #[inline(always)]
    fn remove(&self, place: Place) {
        if let Some(tags) = FLOW_TAGS.get_ptr_mut(place >> 2) {
            // SAFETY: as in `set_life`.
            unsafe { tag(tags, place.into()).write_volatile(FlowTag { bits: 0 }) };
        }
    }

    #[inline(always)]
    fn insert(&self, key: &FlowKey, flow: &Flow, spared: Option<[Place; 2]>) -> Option<Place> {
        let mut place = place_of(key);
        let old = u64::from(place != NOWHERE);
        if old == 0 {
            place = choose(key, flow.life.seconds, packed(spared));
        }
        if place != NOWHERE && put(key, flow, place, old) { Some(place as Place) } else { None }
    }

    #[inline(always)]
    fn claim(&self, key: &FlowKey, flow: &Flow, spared: Option<[Place; 2]>) -> Option<Place> {
        let seen = candidates_of(key);
        if seen != 0 && place_of(key) != NOWHERE {
            return None;
        }
        let place = choose(key, flow.life.seconds, packed(spared));
        if place != NOWHERE && claim(key, flow, place, seen) { Some(place as Place) } else { None }
    }

    #[inline(always)]
    fn is_serving(&self, endpoint: u32, generation: u16) -> bool {
        is_serving(self, endpoint, generation)
    }
}
