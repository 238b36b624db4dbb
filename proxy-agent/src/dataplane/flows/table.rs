//! FLOWS, in memory that the programs write at any moment.
//!
//! What never happens here: an element is written, but for the bit that keeps its slot from others, and that only if
//! nothing of its life has changed since it was read.

use std::{path::Path, sync::atomic::Ordering};

use proxy_common::{Flow, FlowBucket, FlowKey, FlowSlot, FlowTag, FlowTags, Life, flow::buckets};

use crate::dataplane::{Error, mapped::Mapped, tables};

/// Words of a slot.
const SLOT: usize = size_of::<FlowSlot>() / 8;

/// The table of flows.
#[derive(Debug)]
pub struct FlowTable {
    buckets: Mapped<FlowBucket>,
    tags: Mapped<FlowTags>,
    seed: u64,
}

/// Where an element is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    bucket: u32,
    slot: usize,
}

impl FlowTable {
    /// Opens it.
    pub(in crate::dataplane) fn open(pin_dir: &Path) -> Result<Self, Error> {
        let dir = tables::abi_dir(pin_dir);
        let seed = tables::mapped::<u64>(&dir, "FLOW_SEED")?.load(0).unwrap_or_default();
        let (buckets, tags) = (tables::mapped(&dir, "FLOWS")?, tables::mapped(&dir, "FLOW_TAGS")?);
        Ok(Self { buckets, tags, seed })
    }

    /// How many elements it has room for: two of a flow, four of one that is masqueraded.
    pub fn room(&self) -> u32 {
        self.buckets.len().saturating_mul(u32::try_from(FlowBucket::LEN).unwrap_or_default())
    }

    /// The element of `key`.
    pub fn get(&self, key: &FlowKey) -> Option<Flow> {
        self.find(key).map(|(flow, _)| flow)
    }

    /// The element of `key`, and where it is.
    pub(super) fn find(&self, key: &FlowKey) -> Option<(Flow, Place)> {
        self.places(key).find_map(|place| {
            let FlowSlot { key: found, flow } = self.read(place)?;
            (found == *key && flow.is_of(key)).then_some((flow, place))
        })
    }

    /// Calls `visit` with every element that is whole.
    pub fn visit(&self, mut visit: impl FnMut(&FlowKey, &Flow)) {
        for bucket in 0..self.buckets.len() {
            for slot in 0..FlowBucket::LEN {
                if let Some(FlowSlot { key, flow }) = self.read(Place { bucket, slot })
                    && flow.is_of(&key)
                {
                    visit(&key, &flow);
                }
            }
        }
    }

    /// How many elements of confirmed flows there are, and how many flows that is.
    pub fn count(&self) -> (usize, usize) {
        let (mut elements, mut flows) = (0, 0);
        self.visit(|key, flow| {
            if flow.life.has(Life::CONFIRMED) {
                elements += 1;
                flows += usize::from(key.is_ingress() && flow.is_forward());
            }
        });
        (elements, flows)
    }

    /// Lets others take the slot of an element that was read with this life. Whether it was so, and still had it.
    pub(super) fn release(&self, place: Place, life: Life) -> bool {
        let Place { bucket, slot } = place;
        let word = self.tags.word(bucket, 0);
        let released = |word| {
            let mut tags = bytemuck::cast::<u64, FlowTags>(word);
            let is_it = self.read(place).is_some_and(|found| found.flow.life == life);
            tags.slots[slot].bits &= !FlowTag::KEPT;
            (is_it && life.has(Life::CONFIRMED)).then_some(bytemuck::cast::<FlowTags, u64>(tags))
        };
        word.fetch_update(Ordering::AcqRel, Ordering::Acquire, released).is_ok()
    }

    /// What is in a slot, if anything.
    fn read(&self, place: Place) -> Option<FlowSlot> {
        let Place { bucket, slot } = place;
        let tag = *self.tags.load(bucket)?.slots.get(slot)?;
        if tag.bits & FlowTag::KEY == 0 {
            return None;
        }
        let word = |number| self.buckets.word(bucket, slot * SLOT + number).load(Ordering::Acquire);
        let mut found = bytemuck::cast::<[u64; SLOT], FlowSlot>(std::array::from_fn(word));
        found.flow.life.bits |= if tag.is_kept() { Life::CONFIRMED } else { 0 };
        Some(found)
    }

    fn places(&self, key: &FlowKey) -> impl Iterator<Item = Place> + use<> {
        let both = buckets(key.hash(self.seed), self.buckets.len());
        both.into_iter().flat_map(|bucket| (0..FlowBucket::LEN).map(move |slot| Place { bucket, slot }))
    }

    /// Puts an element into its own slot or one that is free, in the emptier bucket, for tests.
    #[cfg(test)]
    pub(super) fn insert(&self, key: &FlowKey, flow: &Flow) {
        let free = |place: &Place| self.read(*place).is_none();
        let own = self.find(key).map(|(_, place)| place);
        let slots = |bucket| (0..FlowBucket::LEN).map(move |slot| Place { bucket, slot });
        let free = self.places(key).filter(free).max_by_key(|place| slots(place.bucket).filter(free).count());
        let Place { bucket, slot } = own.or(free).expect("room");
        let life = Life { bits: flow.life.bits & !Life::CONFIRMED, ..flow.life };
        let words: [u64; SLOT] = bytemuck::cast(FlowSlot { key: *key, flow: Flow { life, ..*flow } });
        for (number, word) in words.into_iter().enumerate() {
            self.buckets.word(bucket, slot * SLOT + number).store(word, Ordering::Release);
        }
        let mut tags = self.tags.load(bucket).expect("the bucket's");
        tags.slots[slot] = FlowTag::new(FlowTag::of_key(key.hash(self.seed)), flow.life);
        self.tags.store(bucket, &tags);
    }
}
