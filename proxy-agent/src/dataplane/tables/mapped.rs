//! A `BPF_F_MMAPABLE` array as memory: reading and writing it costs loads and stores, no system call.
//!
//! The kernel programs read the same memory at any moment, so every access here is an atomic access to a 64-bit word.
//! Fields that must change together fit into one word.

use std::{
    marker::PhantomData,
    os::fd::{AsFd as _, AsRawFd as _},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use aya::maps::MapData;
use memmap2::{MmapOptions, MmapRaw};

use super::crash;
use crate::dataplane::Error;

/// An array of `T` shared with the kernel. `T` consists of whole 64-bit words. A clone is the same memory.
#[derive(Debug)]
pub struct Mapped<T> {
    memory: Arc<MmapRaw>,
    length: u32,
    element: PhantomData<T>,
}

impl<T> Clone for Mapped<T> {
    fn clone(&self) -> Self {
        Self { memory: Arc::clone(&self.memory), length: self.length, element: PhantomData }
    }
}

impl<T: bytemuck::Pod> Mapped<T> {
    pub(crate) const WORDS: usize = {
        assert!(size_of::<T>().is_multiple_of(8), "elements are whole words");
        size_of::<T>() / 8
    };

    pub(crate) fn new(map: &MapData, name: &'static str) -> Result<Self, Error> {
        let length = map.info().map_err(Error::map(name))?.max_entries();
        let memory = MmapOptions::new()
            .len(length as usize * size_of::<T>())
            .map_raw(map.fd().as_fd().as_raw_fd())
            .map_err(Error::system("mmap", name))?;
        Ok(Self { memory: Arc::new(memory), length, element: PhantomData })
    }

    /// An array of this process alone, of zeros.
    pub(crate) fn private(length: u32) -> Result<Self, Error> {
        let memory = MmapOptions::new()
            .len(length as usize * size_of::<T>())
            .map_anon()
            .map_err(Error::system("mmap", "memory of the agent"))?;
        Ok(Self { memory: Arc::new(memory.into()), length, element: PhantomData })
    }

    /// How many elements there are.
    pub fn len(&self) -> u32 {
        self.length
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Word `word` of element `index`, to read; the agent's one writer writes by the functions below.
    ///
    /// # Panics
    /// Beyond the end: an index comes from our own bookkeeping.
    pub fn word(&self, index: u32, word: usize) -> &AtomicU64 {
        assert!(index < self.length && word < Self::WORDS, "element {index} word {word} of {}", self.length);
        let offset = index as usize * Self::WORDS + word;
        #[expect(clippy::cast_ptr_alignment, reason = "a mapping begins at a page")]
        let words = self.memory.as_mut_ptr().cast::<u64>();
        // SAFETY: within the mapping (just checked), aligned (elements are whole words), and never accessed
        // other than atomically.
        unsafe { AtomicU64::from_ptr(words.add(offset)) }
    }

    /// A copy of an element; `None` beyond the end. Whole only if it is one word or nobody writes it.
    pub fn load(&self, index: u32) -> Option<T> {
        if index >= self.length {
            return None;
        }
        let mut value = T::zeroed();
        let words = bytemuck::cast_slice_mut::<u8, u64>(bytemuck::bytes_of_mut(&mut value));
        for (number, word) in words.iter_mut().enumerate() {
            *word = self.word(index, number).load(Ordering::Acquire);
        }
        Some(value)
    }

    /// Writes an element word by word: for elements that no reader is led to yet, or of one word.
    pub fn store(&self, index: u32, value: &T) {
        let words = bytemuck::cast_slice::<u8, u64>(bytemuck::bytes_of(value));
        for (number, word) in words.iter().enumerate() {
            self.store_word(index, number, *word);
        }
    }

    /// Copies the elements of an array of another length to the same places, as many as there are. No reader may be led to them yet.
    pub(crate) fn copy_from(&self, other: &Self) {
        for index in 0..other.length.min(self.length) {
            for word in 0..Self::WORDS {
                let value = other.word(index, word).load(Ordering::Acquire);
                if value != 0 {
                    self.store_word(index, word, value);
                }
            }
        }
    }

    /// Writes a word of an element.
    pub(crate) fn store_word(&self, index: u32, word: usize, value: u64) {
        crash::point();
        self.word(index, word).store(value, Ordering::Release);
    }

    /// Sets bits of a word.
    pub(crate) fn set_bits(&self, index: u32, word: usize, bits: u64) {
        crash::point();
        self.word(index, word).fetch_or(bits, Ordering::AcqRel);
    }

    /// Clears bits of a word.
    pub(crate) fn clear_bits(&self, index: u32, word: usize, bits: u64) {
        crash::point();
        self.word(index, word).fetch_and(!bits, Ordering::AcqRel);
    }
}
