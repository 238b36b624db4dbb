//! A table of the other version, and how its elements become those of ours.

use std::os::fd::AsFd as _;

use bytemuck::Pod;

use super::{earlier::complete, shape::Pinned};
use crate::dataplane::{
    Error,
    followers::stale::holders,
    raw_map::RawMap,
    tables::{
        layout::{Conversion, Layout},
        maps::MapSpec,
    },
};

/// `enum bpf_map_type`.
mod kind {
    pub(super) const HASH: u32 = 1;
    pub(super) const ARRAY: u32 = 2;
    pub(super) const LRU_HASH: u32 = 9;
    pub(super) const LPM_TRIE: u32 = 11;
    pub(super) const SK_STORAGE: u32 = 24;
}

/// Whether programs use the new tables already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pass {
    First,
    Again,
}

/// A table of the other version.
#[derive(Debug)]
pub(super) struct Former {
    pub(super) spec: &'static MapSpec,
    pub(super) map: RawMap,
    /// Whether it is still a map of the same kind.
    is_alike: bool,
    /// Whether keys have another layout.
    keys_differ: bool,
    key: Conversion,
    value: Conversion,
    /// The layout of its values.
    layout: Layout,
}

impl Former {
    pub(super) fn new(Pinned { spec, map, theirs, ours }: Pinned) -> Self {
        let (theirs, ours) = (theirs.unwrap_or_default(), ours.unwrap_or_default());
        Self {
            spec,
            map,
            is_alike: theirs.kind == ours.kind && ours.kind != 0,
            keys_differ: theirs.key != ours.key,
            key: Conversion::new(&theirs.key, &ours.key),
            value: Conversion::new(&theirs.value, &ours.value),
            layout: theirs.value,
        }
    }

    /// Whether it holds what sockets have.
    pub(super) fn is_of_sockets(&self) -> bool {
        self.is_alike && self.map.info.kind == kind::SK_STORAGE
    }

    /// Whether its elements can be converted. The length of a prefix counts bits of the layout, so a trie whose keys have
    /// another one cannot be.
    pub(super) fn can_convert(&self) -> bool {
        self.is_alike && !(self.keys_differ && self.map.info.kind == kind::LPM_TRIE)
    }

    /// Converts all elements; again only where ours have not written any.
    pub(super) fn convert(&self, new: &RawMap, pass: Pass) -> Result<(), Error> {
        match self.map.info.kind {
            _ if !self.can_convert() => {
                tracing::warn!(
                    table = self.spec.name,
                    "what it held cannot be converted, and is not taken over"
                );
                Ok(())
            }
            kind::ARRAY => self.convert_array(new, pass),
            kind::HASH | kind::LRU_HASH | kind::LPM_TRIE => self.convert_hash(new, pass),
            _ => Ok(()),
        }
    }

    fn convert_array(&self, new: &RawMap, pass: Pass) -> Result<(), Error> {
        // New arrays hold zeros.
        let is_written = |map: &RawMap, index: u32| {
            let value = map.lookup(&index.to_ne_bytes())?.unwrap_or_default();
            Ok::<_, Error>(Some(value).filter(|value| value.iter().any(|byte| *byte != 0)))
        };
        for index in 0..self.map.info.max_entries.min(new.info.max_entries) {
            if let Some(value) = is_written(&self.map, index)?
                && (pass == Pass::First || is_written(new, index)?.is_none())
            {
                new.insert(&index.to_ne_bytes(), &self.value(&value), 0)?;
            }
        }
        Ok(())
    }

    fn convert_hash(&self, new: &RawMap, pass: Pass) -> Result<(), Error> {
        let flags = if pass == Pass::First { 0 } else { RawMap::IF_MISSING };
        for (key, value) in self.map.elements()? {
            new.insert(&self.key.apply(&key), &self.value(&value), flags)?;
        }
        Ok(())
    }

    /// A value, in our layout.
    fn value(&self, value: &[u8]) -> Vec<u8> {
        let mut converted = self.value.apply(value);
        complete(self.spec.name, &self.layout, &mut converted);
        converted
    }

    /// An element of an array, in our layout.
    pub(super) fn element<T: Pod>(&self, index: u32) -> Result<Option<T>, Error> {
        let value = self.map.lookup(&index.to_ne_bytes())?;
        Ok(value.and_then(|value| bytemuck::try_pod_read_unaligned(&self.value(&value)).ok()))
    }
}

/// Converts what sockets have, where they have nothing in the new tables. Only those that a visible process holds.
pub(super) fn convert_sockets(tables: &[(&Former, RawMap)]) {
    if tables.is_empty() {
        return;
    }
    holders::every_socket(|socket| {
        for (old, new) in tables {
            let converted = old.map.of_socket(socket.as_fd()).and_then(|found| match found {
                Some(value) => new.set_of_socket(socket.as_fd(), &old.value(&value), RawMap::IF_MISSING),
                None => Ok(()),
            });
            if let Err(error) = converted {
                tracing::debug!(%error, table = old.spec.name, "cannot convert what a socket has");
            }
        }
    });
}
