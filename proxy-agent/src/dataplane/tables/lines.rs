//! FRONTEND_LINES, written: what FRONTENDS has, in cache lines, for the programs.
//!
//! A key is written before its value, which makes it count, and a value is one store: programs read meanwhile. A frontend is
//! in FRONTENDS before it is here, and goes from here first.

use std::{collections::HashMap, sync::atomic::Ordering};

use bytemuck::must_cast;
use proxy_common::{
    Frontend, FrontendKey, FrontendKind, FrontendLine, FrontendPlace, Service,
    frontend_lines::{Lined, OTHERS},
};

use super::mapped::Mapped;

/// The value of a free place.
const FREE: u64 = 0;

/// The lines, of which only the agent writes.
#[derive(Debug)]
pub struct FrontendLines(pub(super) Mapped<FrontendLine>);

impl FrontendLines {
    /// What the programs find.
    pub fn find(&self, key: &FrontendKey) -> Lined {
        let line = self.line(key);
        FrontendLine::find(key, |word| self.0.word(line, word).load(Ordering::Acquire))
    }

    /// Makes a frontend lead where FRONTENDS says, or notes that only FRONTENDS has it. `record` is that of its Service.
    pub(super) fn put(&self, key: &FrontendKey, value: Frontend, record: Option<&Service>) {
        let line = self.line(key);
        let Some(place) = self.place(line, key).or_else(|| self.free(line)) else {
            self.0.set_bits(line, 2, u64::from(OTHERS) << 32);
            return;
        };
        let FrontendKey { address, port, protocol, any_address, padding: _ } = *key;
        let others = (self.load(line, place, 2) >> 32) as u32 & OTHERS;
        let guess = record.map_or(0, |record| guess(value.kind, record)) | others;
        let words: [u64; FrontendLine::WORDS] =
            must_cast(FrontendPlace { address, port, protocol, any_address, guess, value });
        for (number, word) in words.into_iter().enumerate() {
            if self.load(line, place, number) != word {
                self.store(line, place, number, word);
            }
        }
    }

    /// Takes a frontend out. That others are in FRONTENDS alone stays noted: a line that says so too often costs a lookup.
    pub(super) fn remove(&self, key: &FrontendKey) {
        let line = self.line(key);
        if let Some(place) = self.place(line, key) {
            self.store(line, place, 3, FREE);
        }
    }

    /// Makes the lines what FRONTENDS says: an agent that was killed, or that knew no lines, left them otherwise.
    pub(crate) fn adopt(&self, frontends: &HashMap<FrontendKey, Frontend>, records: &Mapped<Service>) {
        for line in 0..self.0.len() {
            for place in 0..FrontendLine::PLACES {
                if let Some((key, _)) = self.entry(line, place)
                    && (!frontends.contains_key(&key) || self.line(&key) != line)
                {
                    self.store(line, place, 3, FREE);
                }
            }
        }
        for (key, value) in frontends {
            self.put(key, *value, records.load(value.service).as_ref());
        }
    }

    /// Key and value in a place, if it is taken.
    fn entry(&self, line: u32, place: usize) -> Option<(FrontendKey, Frontend)> {
        let value = self.load(line, place, 3);
        if value == FREE {
            return None;
        }
        let rest = self.load(line, place, 2) & u64::from(u32::MAX);
        let key = [self.load(line, place, 0), self.load(line, place, 1), rest];
        Some((must_cast(key), must_cast(value)))
    }

    fn line(&self, key: &FrontendKey) -> u32 {
        key.line(self.0.len())
    }

    fn place(&self, line: u32, key: &FrontendKey) -> Option<usize> {
        let is_here = |place: &usize| self.entry(line, *place).is_some_and(|(found, _)| found == *key);
        (0..FrontendLine::PLACES).find(is_here)
    }

    fn free(&self, line: u32) -> Option<usize> {
        (0..FrontendLine::PLACES).find(|place| self.load(line, *place, 3) == FREE)
    }

    fn store(&self, line: u32, place: usize, word: usize, value: u64) {
        self.0.store_word(line, place * FrontendLine::WORDS + word, value);
    }

    fn load(&self, line: u32, place: usize, word: usize) -> u64 {
        self.0.word(line, place * FrontendLine::WORDS + word).load(Ordering::Acquire)
    }
}

/// The first slot of those that most clients of such a frontend get: clients of external ones are mostly outside.
fn guess(kind: u8, record: &Service) -> u32 {
    let span = match FrontendKind::from_number(kind) {
        Some(FrontendKind::ClusterIp) | None => record.cluster,
        Some(_) => record.outside,
    };
    span.base & !OTHERS
}
