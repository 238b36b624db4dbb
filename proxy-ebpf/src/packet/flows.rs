//! FLOWS, as `proxy_common::nat` uses it.

use core::{arch::asm, mem::offset_of};

use aya_ebpf::helpers::{bpf_jiffies64, bpf_ktime_get_ns, bpf_spin_lock, bpf_spin_unlock};
use bytemuck::{must_cast, must_cast_ref};
use proxy_common::{
    Flow, FlowBucket, FlowKey, FlowSlot, Life,
    flow::{self, buckets},
    nat::{Clock, Flows},
    select::is_serving,
};

use crate::{
    config,
    tables::{FLOW_LOCKS, FLOWS, Maps},
};

/// The time as a processor knows it.
pub(super) struct Seconds {
    /// When it was looked at.
    jiffies: u64,
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

/// The two buckets of a key.
#[inline(always)]
fn buckets_of(hash: u64) -> Option<[*mut FlowBucket; 2]> {
    let [first, second] = buckets(hash, config::flow_buckets());
    Some([FLOWS.get_ptr_mut(first)?, FLOWS.get_ptr_mut(second)?])
}

/// Word `word` of slot `slot`, which the verifier believes to be one of the bucket's.
///
/// # Safety
/// `bucket` leads to a value of FLOWS.
#[inline(always)]
unsafe fn word(bucket: *mut FlowBucket, slot: u64, word: usize) -> *mut u64 {
    let mut slot = slot;
    // SAFETY: it touches one register; and the slot is within the bucket then.
    unsafe {
        asm!("{0} &= 3", inout(reg) slot, options(nomem, nostack));
        bucket.cast::<u64>().add(slot as usize * SLOT + word)
    }
}

const SLOT: usize = size_of::<FlowSlot>() / 8;
const KEY: usize = size_of::<FlowKey>() / 8;
/// Which word of an element is its life.
const LIFE: usize = KEY + offset_of!(Flow, life) / 8;

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

/// The lesser of two words below 2^63.
#[inline(always)]
fn lesser(a: u64, b: u64) -> u64 {
    b ^ ((a ^ b) & opaque(a.wrapping_sub(b) >> 63).wrapping_neg())
}

/// The bits of the slots whose key has these ports.
///
/// # Safety
/// `bucket` leads to a value of FLOWS.
#[inline(always)]
unsafe fn candidates(bucket: *mut FlowBucket, ports: u64) -> u64 {
    let mut mask = 0;
    let mut slot = 0;
    while slot < FlowBucket::LEN as u64 {
        // SAFETY: the caller's promise.
        mask |= is_zero(unsafe { word(bucket, slot, KEY - 1).read_volatile() } ^ ports) << slot;
        slot += 1;
    }
    mask
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
        // SAFETY: the caller's promise.
        differs |= unsafe { slot.add(number).read_volatile() } ^ key[number];
        number += 1;
    }
    differs
}

/// The bits of the slots that have this key.
///
/// # Safety
/// `bucket` leads to a value of FLOWS.
#[inline(never)]
unsafe fn holders(bucket: *mut FlowBucket, key: &FlowKey) -> u64 {
    let mut mask = 0;
    let mut slot = 0;
    while slot < FlowBucket::LEN as u64 {
        // SAFETY: the caller's promise.
        mask |= is_zero(unsafe { differs(word(bucket, slot, 0), must_cast_ref(key)) }) << slot;
        slot += 1;
    }
    mask
}

/// The slot that has the key, if one does: its ports are the key's, and whoever reads it compares the rest.
#[inline(always)]
fn slot_of(key: &FlowKey) -> Option<*mut u64> {
    let [first, second] = buckets_of(key.hash(config::flow_seed()))?;
    // SAFETY: both lead to values of FLOWS.
    unsafe {
        let mut mask = candidates(first, key.ports()) | candidates(second, key.ports()) << FlowBucket::LEN;
        if mask & mask.wrapping_sub(1) != 0 {
            mask = holders(first, key) | holders(second, key) << FlowBucket::LEN;
        }
        if mask == 0 {
            return None;
        }
        let lowest = mask & mask.wrapping_neg();
        let bit = |of: u64| is_zero(lowest & of) ^ 1;
        let slot = bit(0xaa) | bit(0xcc) << 1;
        Some(word(if lowest < 1 << FlowBucket::LEN { first } else { second }, slot, 0))
    }
}

/// [`slot_of`], or null, as a function of its own: for what is not asked for every packet.
#[inline(never)]
fn slot_or_null(key: &FlowKey) -> *mut u64 {
    slot_of(key).unwrap_or(core::ptr::null_mut())
}

/// The element in a slot.
///
/// # Safety
/// `slot` leads to a slot of FLOWS.
#[inline(always)]
unsafe fn read(slot: *mut u64, key: &FlowKey) -> Option<(Flow, *mut Life)> {
    // SAFETY: the caller's promise.
    unsafe {
        let flow = must_cast::<[u64; 5], Flow>([
            slot.add(KEY).read_volatile(),
            slot.add(KEY + 1).read_volatile(),
            slot.add(KEY + 2).read_volatile(),
            slot.add(KEY + 3).read_volatile(),
            slot.add(KEY + 4).read_volatile(),
        ]);
        // Another key with these ports; or somebody is writing it.
        let differs = differs(slot, must_cast_ref(key)) | u64::from(flow.check ^ flow.checksum(key));
        if differs == 0 { Some((flow, slot.add(LIFE).cast())) } else { None }
    }
}

/// Whether a slot is a confirmed flow's (in the 41st bit), and when it was used: the one used least recently goes first,
/// one that was never used before all, and a confirmed flow's never.
///
/// # Safety
/// `bucket` leads to a value of FLOWS.
#[inline(always)]
unsafe fn price(bucket: *mut FlowBucket, slot: u64) -> u64 {
    // SAFETY: the caller's promise.
    let life = unsafe { word(bucket, slot, LIFE).read_volatile() };
    // The bits are the upper half of the word, the seconds the lower.
    let kept = life >> (32 + Life::CONFIRMED.trailing_zeros()) & 1;
    kept << KEPT | (life & 0xffff_ffff)
}

/// The bit of a price that says that nobody may take the slot.
const KEPT: u32 = 40;

/// What is known while a place for an element is sought in a bucket.
struct Search {
    /// The least price so far, with the number of its slot in the lowest three bits.
    best: u64,
    /// 1 if the slot with the key is there, which costs nothing.
    found: u64,
    /// How many slots are confirmed flows'.
    kept: u64,
}

impl Search {
    /// Looks at a bucket, whose slots are numbered from `first`.
    ///
    /// # Safety
    /// `bucket` leads to a value of FLOWS.
    #[inline(always)]
    unsafe fn new(bucket: *mut FlowBucket, first: u64, key: &[u64; KEY]) -> Self {
        let mut search = Self { best: u64::MAX >> 1, found: 0, kept: 0 };
        // One by one: a loop the verifier walks with every number.
        // SAFETY: the caller's promise.
        unsafe {
            search.consider(bucket, first, key);
            search.consider(bucket, first + 1, key);
            search.consider(bucket, first + 2, key);
            search.consider(bucket, first + 3, key);
        }
        search
    }

    /// # Safety
    /// `bucket` leads to a value of FLOWS.
    #[inline(always)]
    unsafe fn consider(&mut self, bucket: *mut FlowBucket, number: u64, key: &[u64; KEY]) {
        // SAFETY: the caller's promise.
        let (same, price) =
            unsafe { (is_zero(differs(word(bucket, number, 0), key)), price(bucket, number)) };
        self.found |= same;
        self.kept += price >> KEPT;
        self.best = lesser(((price + 1) << 3) & same.wrapping_sub(1) | number, self.best);
    }

    /// The price of the best slot: of two buckets the one with fewer confirmed flows, so that both fill alike, and then
    /// the least. (With the fuller one taken first half a table is full for one new flow in fifty.)
    #[inline(always)]
    fn price(&self) -> u64 {
        self.best + ((self.kept << (KEPT - 4)) & self.found.wrapping_sub(1))
    }
}

/// Writes an element: over the one with the same key, else into the slot that is missed least.
#[inline(always)]
fn write(buckets: [*mut FlowBucket; 2], key: &FlowKey, flow: &Flow, only_new: bool) -> bool {
    let words: &[u64; KEY] = must_cast_ref(key);
    let [first, second] = buckets;
    // SAFETY: both lead to values of FLOWS, which live as long as the program runs.
    unsafe {
        let (one, other) = (Search::new(first, 0, words), Search::new(second, FlowBucket::LEN as u64, words));
        let best = lesser(one.price(), other.price());
        if best >= 1 << KEPT || only_new && one.found | other.found != 0 {
            return false;
        }
        let bucket = if best & FlowBucket::LEN as u64 == 0 { buckets[0] } else { buckets[1] };
        let element: &[u64; 5] = must_cast_ref(flow);
        // Whoever reads it meanwhile finds that its check is not that of its key.
        word(bucket, best, KEY + CHECK).write_volatile(!element[CHECK]);
        let mut number = 0;
        while number < KEY {
            word(bucket, best, number).write_volatile(words[number]);
            number += 1;
        }
        word(bucket, best, KEY).write_volatile(element[0]);
        word(bucket, best, KEY + 1).write_volatile(element[1]);
        word(bucket, best, KEY + 2).write_volatile(element[2]);
        word(bucket, best, LIFE).write_volatile(element[4]);
        word(bucket, best, KEY + CHECK).write_volatile(element[CHECK]);
    }
    true
}

/// Which word of an element has its check.
const CHECK: usize = 3;
const _: () = assert!(offset_of!(Flow, check) / 8 == CHECK && LIFE == KEY + 4);

impl Flows for Maps {
    type Place = *mut Life;

    #[inline(always)]
    fn find(&self, key: &FlowKey) -> Option<(Flow, Self::Place)> {
        let slot = slot_of(key)?;
        // SAFETY: a slot of FLOWS.
        unsafe { read(slot, key) }
    }

    #[inline(always)]
    fn find_rarely(&self, key: &FlowKey) -> Option<(Flow, Self::Place)> {
        let slot = slot_or_null(key);
        if slot.is_null() {
            return None;
        }
        // SAFETY: a slot of FLOWS.
        unsafe { read(slot, key) }
    }

    #[inline(always)]
    fn has(&self, key: &FlowKey) -> bool {
        // One with the same ports will do for a port that is not to be taken.
        !slot_or_null(key).is_null()
    }

    #[inline(always)]
    fn set_life(&self, place: Self::Place, life: Life) {
        // SAFETY: an aligned word of a map's value, which stays one as long as the program runs. Should the element have
        // been given to another flow, that one lives a little longer.
        unsafe { place.cast::<u64>().write_volatile(must_cast(life)) };
    }

    #[inline(always)]
    fn remove(&self, place: Self::Place) {
        const { assert!(LIFE == KEY + CHECK + 1) };
        // SAFETY: as in `set_life`; the word before the life has the check, which is then that of no key.
        unsafe {
            let check = place.cast::<u64>().sub(1);
            check.write_volatile(!check.read_volatile());
        }
    }

    #[inline(never)]
    fn insert(&self, key: &FlowKey, flow: &Flow) -> bool {
        match buckets_of(key.hash(config::flow_seed())) {
            Some(buckets) => write(buckets, key, flow, false),
            None => false,
        }
    }

    #[inline(never)]
    fn claim(&self, key: &FlowKey, flow: &Flow) -> bool {
        let hash = key.hash(config::flow_seed());
        let Some(buckets) = buckets_of(hash) else { return false };
        let Some(lock) = FLOW_LOCKS.get_ptr_mut(hash as u32 & (flow::FLOW_LOCKS - 1)) else { return false };
        // SAFETY: the lock is the element's own, and given back on the only way on.
        unsafe {
            let lock = (&raw mut (*lock).lock).cast();
            bpf_spin_lock(lock);
            let written = write(buckets, key, flow, true);
            bpf_spin_unlock(lock);
            written
        }
    }

    #[inline(always)]
    fn is_serving(&self, endpoint: u32, generation: u16) -> bool {
        is_serving(self, endpoint, generation)
    }
}
