//! FLOWS or FLOWS_NEW, to look at.

use std::{fmt, path::Path};

use aya::maps::{HashMap, MapData};
use proxy_common::{Flow, FlowKey};

use crate::dataplane::{Error, bpf, tables};

/// One of the two tables of flows.
pub struct FlowTable {
    name: &'static str,
    /// The same map twice: the typed one does not show its descriptor.
    elements: HashMap<MapData, FlowKey, Flow>,
    map: MapData,
    room: u32,
}

impl fmt::Debug for FlowTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(self.name).field("room", &self.room).finish_non_exhaustive()
    }
}

impl FlowTable {
    /// Opens FLOWS.
    pub(in crate::dataplane) fn confirmed(pin_dir: &Path) -> Result<Self, Error> {
        Self::open(pin_dir, "FLOWS")
    }

    /// Opens FLOWS_NEW.
    pub(in crate::dataplane) fn new(pin_dir: &Path) -> Result<Self, Error> {
        Self::open(pin_dir, "FLOWS_NEW")
    }

    fn open(pin_dir: &Path, name: &'static str) -> Result<Self, Error> {
        let dir = tables::abi_dir(pin_dir);
        let elements = tables::hash(&dir, name)?;
        let map = MapData::from_pin(dir.join(name)).map_err(Error::map(name))?;
        let room = map.info().map_err(Error::map(name))?.max_entries();
        Ok(Self { name, elements, map, room })
    }

    /// How many elements it has room for: two of a flow, four of one that is masqueraded.
    pub fn room(&self) -> u32 {
        self.room
    }

    /// The element of `key`.
    pub fn get(&self, key: &FlowKey) -> Option<Flow> {
        self.elements.get(key, 0).ok().filter(|flow| flow.is_of(key))
    }

    /// Calls `visit` with every element.
    pub fn visit(&self, visit: impl FnMut(&FlowKey, &Flow)) -> Result<(), Error> {
        bpf::visit_hash(&self.map, visit).map_err(Error::system("BPF_MAP_LOOKUP_BATCH", self.name))
    }

    /// How many elements there are, and how many flows that is.
    pub fn count(&self) -> Result<(usize, usize), Error> {
        let (mut elements, mut flows) = (0, 0);
        self.visit(|key, flow| {
            elements += 1;
            flows += usize::from(key.is_ingress() && flow.is_forward());
        })?;
        Ok((elements, flows))
    }

    /// Whether there was such an element; there is none now.
    pub(super) fn remove(&mut self, key: &FlowKey) -> bool {
        self.elements.remove(key).is_ok()
    }

    /// Puts an element in, for tests.
    #[cfg(test)]
    pub(super) fn insert(&mut self, key: &FlowKey, flow: &Flow) {
        self.elements.insert(key, flow, 0).expect("room");
    }
}
