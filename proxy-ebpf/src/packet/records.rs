//! FLOWS, FLOW_TAGS, FLOW_USES and SOURCE_PORTS for `proxy_common::connection`: pointers, volatile reads, locks.

use core::{arch::asm, mem::offset_of};

use aya_ebpf::helpers::{bpf_spin_lock, bpf_spin_unlock};
use bytemuck::{must_cast, must_cast_mut, must_cast_ref};
use proxy_common::{
    FlowLock, FlowTags, FlowUses, Happening, NodeEvent, Port, PortOwners, Record, Tuple,
    connection::{
        Answer, Considered, Draft, Drafted, Ends, Flows, Kept, Kind, Known, LANES, Leaving, Origin, RecordId,
        Request, Reservation, Seen, Way, begin,
        buckets::{FLOW_LOCKS as LOCKS, REGION, SLOTS, byte},
        find,
    },
    select::is_serving,
};

use super::headers::{self, State};
use crate::{
    config, events,
    tables::{FLOW_LOCKS, FLOW_TAGS, FLOW_USES, FLOWS, Maps, SOURCE_PORTS, opaque},
};

/// Bounds the number of a slot or lane for the verifier. The compiler, which knows the bound, would remove a plain
/// mask.
#[inline(always)]
fn within(number: u32) -> usize {
    let mut number = u64::from(number);
    // SAFETY: the instruction changes one register.
    unsafe { asm!("{0} &= 7", inout(reg) number, options(nomem, nostack)) };
    number as usize
}

const SEEN: usize = offset_of!(Ends, seen);
const FLAGS: usize = offset_of!(Ends, flags);
const CHECK: usize = offset_of!(Ends, check);
/// Offset of the second half.
const ORIGIN: usize = offset_of!(Record, origin);
/// Offset of the bytes of [`FlowUses::kept`].
const KEPT: usize = offset_of!(FlowUses, kept);

const _: () = assert!(SLOTS == 7 && offset_of!(FlowTags, reach) == 7);
const _: () = assert!(offset_of!(FlowUses, latest) == 7 && KEPT == 8 && offset_of!(FlowUses, away) == 15);

#[inline(always)]
fn record(id: RecordId) -> Option<*mut u64> {
    FLOWS.get_ptr_mut(id.index()).map(<*mut Record>::cast)
}

#[inline(always)]
fn tags_of(bucket: u32) -> Option<*mut u64> {
    FLOW_TAGS.get_ptr_mut(bucket).map(<*mut FlowTags>::cast)
}

#[inline(always)]
fn uses_of(bucket: u32) -> Option<*mut u64> {
    FLOW_USES.get_ptr_mut(bucket).map(<*mut FlowUses>::cast)
}

#[inline(always)]
fn set_byte(id: RecordId, offset: usize, value: u8) {
    if let Some(record) = record(id) {
        // SAFETY: within a value of FLOWS.
        unsafe { record.cast::<u8>().add(offset).write_volatile(value) };
    }
}

/// Copies the first half of a record.
///
/// # Safety
/// `from` points to a value of FLOWS.
#[inline(always)]
unsafe fn copy_ends(from: *mut u64, ends: &mut Ends) {
    let words: &mut [u64; Ends::WORDS] = must_cast_mut(ends);
    let mut word = 0;
    while word < Ends::WORDS {
        // SAFETY: guaranteed by the caller.
        words[word] = unsafe { from.add(word).read_volatile() };
        word += 1;
    }
}

/// The lock with this number, as the helper takes it.
#[inline(always)]
fn lock_of(number: u32) -> Option<*mut aya_ebpf::bindings::bpf_spin_lock> {
    let lock: *mut FlowLock = FLOW_LOCKS.get_ptr_mut(number & (LOCKS - 1))?;
    // SAFETY: a field of a value of FLOW_LOCKS.
    Some(unsafe { (&raw mut (*lock).lock).cast() })
}

/// Pointers to the words of three buckets: the home of the client, that of the reserved slot, and the home of the
/// evicted record.
struct Words {
    home: [*mut u64; 2],
    own: [*mut u64; 2],
    old: [*mut u64; 2],
}

impl Words {
    #[inline(always)]
    fn of(reservation: &Reservation) -> Option<Self> {
        let Reservation { home, record_id, old_home, .. } = *reservation;
        let own = record_id.bucket();
        Some(Self {
            home: [tags_of(home)?, uses_of(home)?],
            own: [tags_of(own)?, uses_of(own)?],
            old: [tags_of(old_home)?, uses_of(old_home)?],
        })
    }
}

impl Flows for Maps {
    #[inline(always)]
    fn regions(&self) -> u32 {
        config::flow_regions()
    }

    #[inline(always)]
    fn seed(&self) -> u64 {
        config::flow_seed()
    }

    #[inline(always)]
    fn opaque(&self, word: u64) -> u64 {
        opaque(word)
    }

    #[inline(always)]
    fn tags(&self, bucket: u32) -> u64 {
        match tags_of(bucket) {
            // SAFETY: the value of FLOW_TAGS is one aligned word.
            Some(tags) => unsafe { tags.read_volatile() },
            None => 0,
        }
    }

    #[inline(always)]
    fn uses(&self, bucket: u32) -> [u64; 2] {
        match uses_of(bucket) {
            // SAFETY: the value of FLOW_USES is two aligned words.
            Some(uses) => unsafe { [uses.read_volatile(), uses.add(1).read_volatile()] },
            None => [0; 2],
        }
    }

    /// `tuple` and `ends` must be those of the current packet, or of its draft.
    #[inline(always)]
    fn find_anywhere<W: Way>(&self, _: &Tuple, hash: u64, _: &mut Ends) -> RecordId {
        RecordId(match W::KIND {
            Kind::Request => find_request(hash),
            Kind::Leaving => find_leaving(hash),
            Kind::Answer => find_answer(hash),
            Kind::Drafted => find_drafted(hash),
        })
    }

    /// The draft must be that of the current packet.
    #[inline(always)]
    fn find_remapped(&self, _: &mut Draft) -> RecordId {
        RecordId(find_remapped_for_draft())
    }

    /// The draft must be that of the current packet.
    #[inline(always)]
    fn consider(&self, _: &mut Draft, hash: u64, turn: u32) -> Considered {
        const BEST: u32 = Considered::Best as u32;
        const MORE: u32 = Considered::More as u32;
        match consider_bucket(hash, turn) {
            BEST => Considered::Best,
            MORE => Considered::More,
            _ => Considered::Busy,
        }
    }

    #[inline(always)]
    fn endpoint_of(&self, id: RecordId) -> (u32, u16) {
        let Some(record) = record(id) else { return (0, 0) };
        // SAFETY: within a value of FLOWS.
        let word = unsafe { record.add(ORIGIN / 8 + 2).read_volatile() };
        ((word >> 32) as u32, (word >> 16) as u16)
    }

    #[inline(always)]
    fn device_of(&self, id: RecordId) -> u32 {
        let Some(record) = record(id) else { return 0 };
        // SAFETY: within a value of FLOWS.
        unsafe { record.byte_add(ORIGIN + offset_of!(Origin, device)).cast::<u32>().read_volatile() }
    }

    #[inline(always)]
    fn read<W: Way>(&self, id: RecordId, tuple: &Tuple, ends: &mut Ends) -> bool {
        let Some(record) = record(id) else { return false };
        // SAFETY: a value of FLOWS.
        unsafe { copy_ends(record, ends) };
        let words: &[u64; Ends::WORDS] = must_cast_ref(&*ends);
        let wrong = u64::from(Ends::checksum_of(words) ^ ends.check);
        opaque(Ends::differs::<W>(words, tuple) | wrong) == 0
    }

    #[inline(always)]
    fn read_ends(&self, id: RecordId, ends: &mut Ends) -> bool {
        let Some(record) = record(id) else { return false };
        // SAFETY: a value of FLOWS.
        unsafe { copy_ends(record, ends) };
        ends.is_whole()
    }

    #[inline(always)]
    fn read_origin(&self, id: RecordId, check: u32, origin: &mut Origin) -> bool {
        let Some(record) = record(id) else { return false };
        let words: &mut [u64; Origin::WORDS] = must_cast_mut(origin);
        let mut word = 0;
        while word < 5 {
            // SAFETY: within a value of FLOWS.
            words[word] = unsafe { record.add(ORIGIN / 8 + word).read_volatile() };
            word += 1;
        }
        origin.is_of(check)
    }

    #[inline(always)]
    fn known(&self, id: RecordId, check: u32) -> Option<Known> {
        let record = record(id)?;
        // SAFETY: within a value of FLOWS.
        let word = |word| unsafe { record.add(ORIGIN / 8 + word).read_volatile() };
        let (ids, used) = (word(2), word(4));
        let origin: Origin = must_cast([word(0), word(1), ids, word(3), used, 0, 0, 0]);
        if !origin.is_of(check) {
            return None;
        }
        Some(Known {
            endpoint: (ids >> 32) as u32,
            generation: (ids >> 16) as u16,
            seconds: used as u32,
            device: (used >> 32) as u32,
            answer: (word(5) >> 32) as u32,
        })
    }

    #[inline(always)]
    fn see_client(&self, id: RecordId, bits: u8) {
        set_byte(id, SEEN + offset_of!(Seen, client), bits);
    }

    #[inline(always)]
    fn see_endpoint(&self, id: RecordId, bits: u8) {
        set_byte(id, SEEN + offset_of!(Seen, endpoint), bits);
    }

    #[inline(always)]
    fn see_reset(&self, id: RecordId, by: u8) {
        set_byte(id, SEEN + offset_of!(Seen, reset), by);
    }

    #[inline(always)]
    fn see_answer(&self, id: RecordId, sequence: u32) {
        if let Some(record) = record(id) {
            // SAFETY: within a value of FLOWS.
            unsafe {
                record.byte_add(ORIGIN + offset_of!(Origin, answer)).cast::<u32>().write_volatile(sequence);
            }
        }
    }

    #[inline(always)]
    fn set_route(&self, id: RecordId, route: u8) {
        set_byte(id, SEEN + offset_of!(Seen, route), route);
    }

    #[inline(always)]
    fn touch(&self, id: RecordId, seconds: u32) {
        let (Some(record), Some(uses)) = (record(id), uses_of(id.bucket())) else { return };
        // SAFETY: within values of FLOWS and FLOW_USES. If the slot now belongs to another connection, that one
        // lives a little longer.
        unsafe {
            record.byte_add(ORIGIN + offset_of!(Origin, seconds)).cast::<u32>().write_volatile(seconds);
            uses.cast::<u8>().add(within(id.slot())).write_volatile(seconds as u8);
        }
    }

    #[inline(always)]
    fn set_device(&self, id: RecordId, device: u32) {
        if let Some(record) = record(id) {
            // SAFETY: within a value of FLOWS.
            unsafe {
                record.byte_add(ORIGIN + offset_of!(Origin, device)).cast::<u32>().write_volatile(device);
            }
        }
    }

    #[inline(always)]
    fn reserve(&self, reservation: &Reservation) -> bool {
        reserve(reservation)
    }

    #[inline(always)]
    fn keep(&self, id: RecordId, check: u32, kept: bool) -> bool {
        set_kept(id, check, if kept { Change::Keep } else { Change::Release })
    }

    #[inline(always)]
    fn free(&self, id: RecordId, check: u32) {
        set_kept(id, check, Change::Free);
    }

    #[inline(always)]
    fn write_ends(&self, id: RecordId, ends: &Ends) {
        let Some(record) = record(id) else { return };
        let words: &[u64; Ends::WORDS] = must_cast_ref(ends);
        // SAFETY: within a value of FLOWS that is reserved for this writer. Concurrent readers find a wrong check.
        unsafe {
            record.byte_add(CHECK).cast::<u32>().write_volatile(!ends.check);
            let mut word = 0;
            while word < Ends::WORDS - 1 {
                record.add(word).write_volatile(words[word]);
                word += 1;
            }
            record.add(Ends::WORDS - 1).write_volatile(words[Ends::WORDS - 1]);
        }
    }

    #[inline(always)]
    fn write_origin(&self, id: RecordId, origin: &Origin) {
        let Some(record) = record(id) else { return };
        let words: &[u64; Origin::WORDS] = must_cast_ref(origin);
        let mut word = 0;
        while word < Origin::WORDS {
            // SAFETY: as above.
            unsafe { record.add(ORIGIN / 8 + word).write_volatile(words[word]) };
            word += 1;
        }
    }

    #[inline(always)]
    fn publish(&self, id: RecordId, flags: u8) {
        set_byte(id, FLAGS, flags);
        if let Some(uses) = uses_of(id.bucket()) {
            // SAFETY: a byte of FLOW_USES, which nothing else writes while the slot is reserved.
            unsafe {
                let kept = uses.cast::<u8>().add(KEPT + within(id.slot()));
                kept.write_volatile(kept.read_volatile() & Kept::AWAY);
            }
        }
    }

    #[inline(always)]
    fn owners(&self, port: Port, owners: &mut PortOwners) -> bool {
        let Some(element) = SOURCE_PORTS.get_ptr_mut(port.number.into()) else { return false };
        let (element, words): (*mut u64, &mut [u64; PortOwners::WORDS]) =
            (element.cast(), must_cast_mut(owners));
        let mut word = 0;
        while word < PortOwners::WORDS {
            // SAFETY: the value of SOURCE_PORTS is this many aligned words.
            words[word] = unsafe { element.add(word).read_volatile() };
            word += 1;
        }
        true
    }

    #[inline(always)]
    fn own(&self, port: Port, seen: &PortOwners, lane: u32, tag: u8, id: RecordId) -> bool {
        own(port.number.into(), seen, u64::from(lane) << 8 | u64::from(tag), id)
    }

    #[inline(always)]
    fn happened(&self, id: RecordId, ends: &Ends, what: Happening) {
        events::flow(what, id.index());
        if what == Happening::Reset && !ends.seen.confirmed() && ends.seen.reset == Seen::BY_ENDPOINT {
            events::lost(ends, id.index(), NodeEvent::ResetByEndpoint);
        }
    }

    #[inline(always)]
    fn is_serving(&self, endpoint: u32, generation: u16) -> bool {
        is_serving(self, endpoint, generation)
    }
}

/// A step: see [`super`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn consider_bucket(hash: u64, turn: u32) -> u32 {
    match headers::state() {
        Some(state) => begin::consider(&Maps, &mut state.begin.draft, hash, turn) as u32,
        None => Considered::Busy as u32,
    }
}

/// A step: see [`super`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn find_remapped_for_draft() -> u32 {
    match headers::state() {
        Some(state) => begin::find_remapped(&Maps, &mut state.begin.draft).0,
        None => RecordId::NONE.0,
    }
}

#[inline(always)]
fn find_for_packet<W: Way>(hash: u64, turn: u32) -> u32 {
    let Some(State { tuple, ends, .. }) = headers::state() else { return RecordId::NONE.0 };
    find::find_in_bucket::<W>(&Maps, tuple, hash, turn, ends).0
}

/// Two steps for each kind of packet: a search of all buckets, and of one bucket.
macro_rules! steps {
    ($($anywhere:ident, $in_bucket:ident, $find:expr;)+) => {$(
        /// A step: see [`super`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $anywhere(hash: u64) -> u32 {
            find::find_anywhere(&Maps, hash, |turn| RecordId($in_bucket(hash, turn))).0
        }

        /// A step: see [`super`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $in_bucket(hash: u64, turn: u32) -> u32 {
            $find(hash, turn)
        }
    )+};
}

steps! {
    find_request, find_request_in_bucket, find_for_packet::<Request>;
    find_leaving, find_leaving_in_bucket, find_for_packet::<Leaving>;
    find_answer, find_answer_in_bucket, find_for_packet::<Answer>;
    find_drafted, find_drafted_in_bucket, find_for_draft;
}

#[inline(always)]
fn find_for_draft(hash: u64, turn: u32) -> u32 {
    let Some(State { begin, .. }) = headers::state() else { return RecordId::NONE.0 };
    let (tuple, other) = begin.draft.others();
    find::find_in_bucket::<Drafted>(&Maps, tuple, hash, turn, other).0
}

#[inline(never)]
fn reserve(reservation: &Reservation) -> bool {
    let Reservation { home, record_id, home_tags, tags, kept, old_home: _, reach, tag, second, padding: _ } =
        *reservation;
    let (Some(Words { home: [first, first_uses], own: [own, own_uses], old: [old, old_uses] }), Some(lock)) =
        (Words::of(reservation), lock_of(home / REGION))
    else {
        return false;
    };
    let slot = within(record_id.slot());
    let was_away = byte(kept, slot as u32) & Kept::AWAY != 0;
    let away = if reach != 0 { Kept::AWAY } else { 0 };
    // SAFETY: words and bytes of FLOW_TAGS and FLOW_USES; the only path releases the lock.
    unsafe {
        bpf_spin_lock(lock);
        let same = (first.read_volatile() ^ home_tags)
            | (own.read_volatile() ^ tags)
            | (own_uses.add(1).read_volatile() ^ kept);
        if same == 0 {
            if was_away {
                let count = old_uses.cast::<u8>().add(15);
                let others = count.read_volatile();
                // 255 is saturated: the true count is unknown.
                if others != 255 && others != 0 {
                    count.write_volatile(others - 1);
                    if others == 1 {
                        old.cast::<u8>().add(7).write_volatile(0);
                    }
                }
            }
            if reach != 0 {
                let (count, furthest) = (first_uses.cast::<u8>().add(15), first.cast::<u8>().add(7));
                let others = count.read_volatile();
                if others != 255 {
                    count.write_volatile(others + 1);
                }
                if furthest.read_volatile() < reach {
                    furthest.write_volatile(reach);
                }
            }
            own.cast::<u8>().add(slot).write_volatile(tag);
            own_uses.cast::<u8>().add(slot).write_volatile(second);
            own_uses.cast::<u8>().add(7).write_volatile(slot as u8);
            own_uses.cast::<u8>().add(KEPT + slot).write_volatile(Kept::RESERVED | away);
        }
        bpf_spin_unlock(lock);
        same == 0
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
enum Change {
    Keep = 0,
    Release = 1,
    Free = 2,
}

#[inline(never)]
fn set_kept(id: RecordId, check: u32, change: Change) -> bool {
    let bucket = id.bucket();
    let (Some(record), Some(tags), Some(uses), Some(lock)) =
        (record(id), tags_of(bucket), uses_of(bucket), lock_of(bucket / REGION))
    else {
        return false;
    };
    let slot = within(id.slot());
    // SAFETY: within values of FLOWS, FLOW_TAGS and FLOW_USES; the only path releases the lock.
    unsafe {
        let kept = uses.cast::<u8>().add(KEPT + slot);
        bpf_spin_lock(lock);
        let before = kept.read_volatile();
        let is_it =
            before & Kept::RESERVED == 0 && record.byte_add(CHECK).cast::<u32>().read_volatile() == check;
        if is_it {
            if change as u32 == Change::Keep as u32 {
                kept.write_volatile(before | Kept::CONFIRMED);
            } else {
                kept.write_volatile(before & Kept::AWAY);
            }
            if change as u32 == Change::Free as u32 {
                tags.cast::<u8>().add(slot).write_volatile(0);
            }
        }
        bpf_spin_unlock(lock);
        is_it
    }
}

/// `mark` has the tag in its low byte, and the lane above.
#[inline(never)]
fn own(port: u32, seen: &PortOwners, mark: u64, id: RecordId) -> bool {
    let (Some(element), Some(lock)) = (SOURCE_PORTS.get_ptr_mut(port), lock_of(port)) else { return false };
    let (element, words): (*mut u64, &[u64; PortOwners::WORDS]) = (element.cast(), must_cast_ref(seen));
    let mut lane = mark >> 8;
    // For the verifier, as in `within`.
    // SAFETY: the instruction changes one register.
    unsafe { asm!("{0} &= 3", inout(reg) lane, options(nomem, nostack)) };
    // SAFETY: within a value of SOURCE_PORTS; the only path releases the lock.
    unsafe {
        bpf_spin_lock(lock);
        let same = (element.read_volatile() ^ words[0])
            | (element.add(1).read_volatile() ^ words[1])
            | (element.add(2).read_volatile() ^ words[2]);
        if same == 0 {
            element.add(1).cast::<u32>().add(lane as usize).write_volatile(id.0);
            element.cast::<u8>().add(lane as usize).write_volatile(mark as u8);
        }
        bpf_spin_unlock(lock);
        same == 0
    }
}

const _: () = assert!(LANES == 4 && offset_of!(PortOwners, record_ids) == 8);
