//! The tables in memory, and a second processor.

use std::{
    cell::{Cell, RefCell},
    collections::HashSet,
};

use bytemuck::Zeroable as _;
use proxy_common::{
    FlowTags, FlowUses, Port, PortOwners, Record, Tuple,
    connection::{
        Ends, Flows, Kept, Known, Origin, RecordId, Reservation, Seen, Way,
        buckets::{REGION, SLOTS},
    },
};

/// What the other processor does.
type Meanwhile = Box<dyn FnOnce(&Memory)>;

pub(crate) struct Memory {
    pub(crate) tags: RefCell<Vec<FlowTags>>,
    pub(crate) uses: RefCell<Vec<FlowUses>>,
    pub(crate) records: RefCell<Vec<Record>>,
    pub(crate) owners: RefCell<Vec<PortOwners>>,
    pub(crate) serving: RefCell<HashSet<(u32, u16)>>,
    random: Cell<u32>,
    /// Number of accesses so far, and that of the access before which the other processor acts.
    accesses: Cell<u32>,
    turn: Cell<u32>,
    meanwhile: RefCell<Option<Meanwhile>>,
}

impl Memory {
    pub(crate) fn new(regions: usize) -> Self {
        let buckets = regions * REGION as usize;
        Self {
            tags: RefCell::new(vec![FlowTags::default(); buckets]),
            uses: RefCell::new(vec![FlowUses::default(); buckets]),
            records: RefCell::new(vec![Record::zeroed(); buckets * SLOTS as usize]),
            owners: RefCell::new(vec![PortOwners::default(); 1 << 16]),
            serving: RefCell::default(),
            random: Cell::new(1),
            accesses: Cell::new(0),
            turn: Cell::new(u32::MAX),
            meanwhile: RefCell::new(None),
        }
    }

    pub(crate) fn draw(&self) -> u32 {
        self.random.set(self.random.get().wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
        self.random.get().rotate_left(16)
    }

    /// Lets the other processor act before the access with this number, counted from now on.
    pub(crate) fn interrupt(&self, turn: u32, meanwhile: Meanwhile) {
        self.accesses.set(0);
        self.turn.set(turn);
        *self.meanwhile.borrow_mut() = Some(meanwhile);
    }

    /// Whether the other processor has acted.
    pub(crate) fn was_interrupted(&self) -> bool {
        self.meanwhile.borrow().is_none()
    }

    fn access(&self) {
        let number = self.accesses.get();
        self.accesses.set(number + 1);
        if number == self.turn.get() {
            let meanwhile = self.meanwhile.borrow_mut().take();
            if let Some(meanwhile) = meanwhile {
                meanwhile(self);
            }
        }
    }

    /// Every record that lookups can find, with its id.
    pub(crate) fn all(&self) -> Vec<(RecordId, Record)> {
        let buckets = u32::try_from(self.tags.borrow().len()).expect("a small number");
        let ids = (0..buckets).flat_map(|bucket| (0..SLOTS).map(move |slot| RecordId::new(bucket, slot)));
        let is_there = |id: &RecordId| self.tags.borrow()[id.bucket() as usize].tags[id.slot() as usize] != 0;
        ids.filter(is_there)
            .map(|id| (id, self.record(id)))
            .filter(|(_, record)| record.is_whole() && record.ends.flags & Ends::PENDING == 0)
            .collect()
    }

    pub(crate) fn record(&self, id: RecordId) -> Record {
        self.records.borrow()[id.index() as usize]
    }

    pub(crate) fn kept(&self, id: RecordId) -> u8 {
        self.uses.borrow()[id.bucket() as usize].kept[id.slot() as usize]
    }

    /// Evicts a record completely.
    pub(crate) fn evict(&self, id: RecordId) {
        self.records.borrow_mut()[id.index() as usize] = Record::zeroed();
        self.tags.borrow_mut()[id.bucket() as usize].tags[id.slot() as usize] = 0;
        self.uses.borrow_mut()[id.bucket() as usize].kept[id.slot() as usize] &= Kept::AWAY;
    }

    fn change(&self, id: RecordId, change: impl FnOnce(&mut Record)) {
        self.access();
        if let Some(record) = self.records.borrow_mut().get_mut(id.index() as usize) {
            change(record);
        }
    }

    fn set_kept(&self, id: RecordId, check: u32, change: impl FnOnce(&mut u8, &mut u8)) -> bool {
        self.access();
        let (mut tags, mut uses) = (self.tags.borrow_mut(), self.uses.borrow_mut());
        let slot = id.slot() as usize;
        let (tag, kept) =
            (&mut tags[id.bucket() as usize].tags[slot], &mut uses[id.bucket() as usize].kept[slot]);
        let is_it = *kept & Kept::RESERVED == 0 && self.record(id).ends.check == check;
        if is_it {
            change(tag, kept);
        }
        is_it
    }
}

const fn word<T: bytemuck::NoUninit + Copy>(value: T) -> u64 {
    bytemuck::must_cast(value)
}

impl Flows for Memory {
    fn regions(&self) -> u32 {
        u32::try_from(self.tags.borrow().len()).expect("a small number") / REGION
    }
    fn seed(&self) -> u64 {
        0x1234_5678_9abc_def1
    }
    fn tags(&self, bucket: u32) -> u64 {
        self.access();
        word(self.tags.borrow()[bucket as usize])
    }
    fn uses(&self, bucket: u32) -> [u64; 2] {
        self.access();
        bytemuck::must_cast(self.uses.borrow()[bucket as usize])
    }
    fn endpoint_of(&self, id: RecordId) -> (u32, u16) {
        self.access();
        let Origin { endpoint, generation, .. } = self.record(id).origin;
        (endpoint, generation)
    }
    fn device_of(&self, id: RecordId) -> u32 {
        self.access();
        self.record(id).origin.device
    }
    fn read<W: Way>(&self, id: RecordId, tuple: &Tuple, ends: &mut Ends) -> bool {
        self.read_ends(id, ends) && ends.is::<W>(tuple)
    }
    fn read_ends(&self, id: RecordId, ends: &mut Ends) -> bool {
        self.access();
        let records = self.records.borrow();
        let Some(record) = records.get(id.index() as usize) else { return false };
        *ends = record.ends;
        ends.is_whole()
    }
    fn read_origin(&self, id: RecordId, check: u32, origin: &mut Origin) -> bool {
        self.access();
        *origin = self.record(id).origin;
        origin.is_of(check)
    }
    fn known(&self, id: RecordId, check: u32) -> Option<Known> {
        self.access();
        let Origin { endpoint, generation, seconds, device, answer, .. } = self.record(id).origin;
        let known = Known { endpoint, generation, seconds, device, answer };
        self.record(id).origin.is_of(check).then_some(known)
    }
    fn see_client(&self, id: RecordId, bits: u8) {
        self.change(id, |record| record.ends.seen.client = bits);
    }
    fn see_endpoint(&self, id: RecordId, bits: u8) {
        self.change(id, |record| record.ends.seen.endpoint = bits);
    }
    fn see_reset(&self, id: RecordId, by: u8) {
        self.change(id, |record| record.ends.seen.reset = by);
    }
    fn see_answer(&self, id: RecordId, sequence: u32) {
        self.change(id, |record| record.origin.answer = sequence);
    }
    fn set_route(&self, id: RecordId, route: u8) {
        self.change(id, |record| record.ends.seen.route = route);
    }
    fn touch(&self, id: RecordId, seconds: u32) {
        self.change(id, |record| record.origin.seconds = seconds);
        let second = u8::try_from(seconds % 256).expect("one byte");
        self.uses.borrow_mut()[id.bucket() as usize].seconds[id.slot() as usize] = second;
    }
    fn set_device(&self, id: RecordId, device: u32) {
        self.change(id, |record| record.origin.device = device);
    }
    fn reserve(&self, reservation: &Reservation) -> bool {
        self.access();
        let Reservation { home, record_id, home_tags, tags, kept, old_home, reach, tag, second, padding: _ } =
            *reservation;
        let (all_tags, all_uses) = (&mut *self.tags.borrow_mut(), &mut *self.uses.borrow_mut());
        let (home, own, old) = (home as usize, record_id.bucket() as usize, old_home as usize);
        let [_, kept_now]: [u64; 2] = bytemuck::must_cast(all_uses[own]);
        if word(all_tags[home]) != home_tags || word(all_tags[own]) != tags || kept_now != kept {
            return false;
        }
        let slot = record_id.slot() as usize;
        if all_uses[own].kept[slot] & Kept::AWAY != 0 && !matches!(all_uses[old].away, 0 | 255) {
            all_uses[old].away -= 1;
            if all_uses[old].away == 0 {
                all_tags[old].reach = 0;
            }
        }
        let mut bits = Kept::RESERVED;
        if reach != 0 {
            bits |= Kept::AWAY;
            all_uses[home].away = all_uses[home].away.saturating_add(1);
            all_tags[home].reach = all_tags[home].reach.max(reach);
        }
        all_tags[own].tags[slot] = tag;
        all_uses[own].seconds[slot] = second;
        all_uses[own].latest = u8::try_from(slot).expect("a slot number");
        all_uses[own].kept[slot] = bits;
        true
    }
    fn keep(&self, id: RecordId, check: u32, kept: bool) -> bool {
        self.set_kept(id, check, |_, bits| {
            *bits = if kept { *bits | Kept::CONFIRMED } else { *bits & Kept::AWAY };
        })
    }
    fn free(&self, id: RecordId, check: u32) {
        self.set_kept(id, check, |tag, bits| (*tag, *bits) = (0, *bits & Kept::AWAY));
    }
    fn write_ends(&self, id: RecordId, ends: &Ends) {
        self.change(id, |record| record.ends = *ends);
    }
    fn write_origin(&self, id: RecordId, origin: &Origin) {
        self.change(id, |record| record.origin = *origin);
    }
    fn publish(&self, id: RecordId, flags: u8) {
        self.change(id, |record| record.ends.flags = flags);
        self.uses.borrow_mut()[id.bucket() as usize].kept[id.slot() as usize] &= Kept::AWAY;
    }
    fn owners(&self, port: Port, owners: &mut PortOwners) -> bool {
        self.access();
        *owners = self.owners.borrow()[usize::from(port.get())];
        true
    }
    fn own(&self, port: Port, seen: &PortOwners, lane: u32, tag: u8, id: RecordId) -> bool {
        self.access();
        let owners = &mut self.owners.borrow_mut()[usize::from(port.get())];
        if owners != seen {
            return false;
        }
        owners.tags[lane as usize] = tag;
        owners.record_ids[lane as usize] = id.0;
        true
    }
    fn is_serving(&self, endpoint: u32, generation: u16) -> bool {
        self.serving.borrow().contains(&(endpoint, generation))
    }
}

/// An empty record.
pub(crate) fn nothing() -> (Ends, Origin) {
    let Record { mut ends, origin } = Record::zeroed();
    ends.seen = Seen::default();
    (ends, origin)
}
