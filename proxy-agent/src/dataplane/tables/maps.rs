//! The pinned maps and their layouts, and opening one.

use std::path::{Path, PathBuf};

use aya::maps::{HashMap, Map, MapData, MapInfo, lpm_trie::Key};
use proxy_common::{
    ABI, Address, AddressEntry, Affinity, AffinityKey, Asker, ClientAddresses, Datagrams, Endpoint,
    EndpointState, FlowLock, FlowTags, FlowUses, FragmentKey, FragmentPorts, Frontend, FrontendKey,
    FrontendLine, Interface, LastRefusal, Listener, OverflowKey, Overflowed, Peer, PortOwners, Rate, Record,
    RefusedPair, Service, ServiceCounters, ServiceName, ServiceRefusals, SharedPorts, SourceRangeKey,
    Translation, Tuple, connection::buckets::SLOTS, counters::SHARDS,
};

use super::{capacity::Capacity, mapped::Mapped};
use crate::dataplane::Error;

/// What a pinned map must look like to be ours.
#[derive(Debug)]
pub struct MapSpec {
    /// Its name, which is also the pin's.
    pub name: &'static str,
    /// Bytes of a key.
    pub key: usize,
    /// Bytes of a value.
    pub value: usize,
    /// How many entries it has, where that depends on the capacity.
    pub(crate) length: Option<fn(&Capacity) -> u32>,
    /// Whether it is one of those that say together which connections there are: they refer to each other by place, so
    /// all of them are made anew if one is.
    pub(crate) of_connections: bool,
}

/// A map that has the length that its program says.
const fn fixed<K, V>(name: &'static str) -> MapSpec {
    MapSpec { name, key: size_of::<K>(), value: size_of::<V>(), length: None, of_connections: false }
}

/// A map whose length the capacity says.
const fn sized<K, V>(name: &'static str, length: fn(&Capacity) -> u32) -> MapSpec {
    MapSpec { length: Some(length), ..fixed::<K, V>(name) }
}

/// One of the tables of connections.
const fn of_connections<V>(name: &'static str, length: fn(&Capacity) -> u32) -> MapSpec {
    MapSpec { of_connections: true, ..sized::<u32, V>(name, length) }
}

/// All pinned maps.
pub const MAPS: [MapSpec; 42] = [
    sized::<FrontendKey, Frontend>("FRONTENDS", |to| to.frontends),
    sized::<u32, FrontendLine>("FRONTEND_LINES", |to| FrontendLine::lines(to.frontends)),
    sized::<Address, AddressEntry>("ADDRESSES", |to| to.frontends),
    sized::<u32, Service>("SERVICES", |to| to.services),
    sized::<u32, Endpoint>("ENDPOINTS", |to| to.endpoints),
    sized::<u32, EndpointState>("ENDPOINT_STATE", |to| to.endpoints),
    fixed::<u32, Peer>("PEERS"),
    fixed::<u32, Translation>("SOCKETS"),
    fixed::<u32, Datagrams>("DATAGRAMS"),
    fixed::<u64, u64>("NAMESPACES"),
    fixed::<OverflowKey, Overflowed>("OVERFLOW"),
    fixed::<u32, SharedPorts>("SHARED_PORTS"),
    sized::<AffinityKey, Affinity>("AFFINITY", |to| to.clients),
    fixed::<Key<SourceRangeKey>, u32>("SOURCE_RANGES"),
    fixed::<u64, ClientAddresses>("CLIENTS"),
    fixed::<u64, u64>("BYPASSED"),
    fixed::<u32, u64>("ADDRESS_FILTER"),
    fixed::<u32, u64>("NODE_PORTS"),
    of_connections::<Record>("FLOWS", |to| to.buckets() * SLOTS),
    of_connections::<FlowTags>("FLOW_TAGS", Capacity::buckets),
    of_connections::<FlowUses>("FLOW_USES", Capacity::buckets),
    of_connections::<PortOwners>("SOURCE_PORTS", |to| if to.flows == 0 { 1 } else { 1 << 16 }),
    fixed::<u32, u64>("FOREIGN_PORTS"),
    fixed::<Tuple, u64>("OUTGOING"),
    fixed::<Tuple, u64>("STRAYS"),
    fixed::<Asker, u64>("ASKERS"),
    fixed::<u32, FlowLock>("FLOW_LOCKS"),
    fixed::<u32, u64>("FLOW_SEED"),
    sized::<FragmentKey, FragmentPorts>("FRAGMENTS", |to| if to.flows == 0 { 1 << 6 } else { 1 << 12 }),
    fixed::<u32, Interface>("INTERFACES"),
    fixed::<u32, Rate>("REFUSED_RATE"),
    fixed::<u32, Rate>("HELD_RATE"),
    fixed::<RefusedPair, LastRefusal>("LAST_REFUSALS"),
    fixed::<u32, Rate>("RECORDED_RATE"),
    fixed::<u32, u64>("LISTENING"),
    fixed::<u32, Listener>("LISTENERS"),
    fixed::<u32, u32>("EVENTS"),
    sized::<u32, ServiceCounters>("COUNTERS", |to| to.services.saturating_mul(SHARDS)),
    sized::<u32, ServiceRefusals>("REFUSALS", |to| to.services),
    fixed::<u32, u64>("TOTALS"),
    sized::<u32, ServiceName>("NAMES", |to| to.services),
    fixed::<u32, u32>("GRACE"),
];

/// The directory below `pin_dir` that holds tables of this layout.
pub fn abi_dir(pin_dir: &Path) -> PathBuf {
    pin_dir.join(ABI)
}

impl MapSpec {
    /// Checks a pin that exists: the kernel would accept any map, and the programs would misread it.
    pub(crate) fn check(&self, path: &Path) -> Result<(), Error> {
        let info = MapInfo::from_pin(path).map_err(Error::map(self.name))?;
        let found = (info.key_size() as usize, info.value_size() as usize);
        let expected = (self.key, self.value);
        if found == expected {
            return Ok(());
        }
        let sizes = |(key, value): (usize, usize)| format!("keys of {key} and values of {value} bytes");
        Err(Error::Layout {
            path: path.display().to_string(),
            found: sizes(found),
            expected: sizes(expected),
        })
    }
}

/// How many entries a pinned map has room for.
pub(crate) fn room(dir: &Path, name: &'static str) -> Result<u32, Error> {
    room_at(&dir.join(name), name)
}

/// The same of the map at this pin.
pub(super) fn room_at(pin: &Path, name: &'static str) -> Result<u32, Error> {
    Ok(MapInfo::from_pin(pin).map_err(Error::map(name))?.max_entries())
}

/// A pinned map, if it is ours.
pub(super) fn pinned(dir: &Path, name: &'static str) -> Result<Map, Error> {
    pinned_at(&dir.join(name), name)
}

/// The same of the map at this pin.
pub(super) fn pinned_at(pin: &Path, name: &'static str) -> Result<Map, Error> {
    if let Some(spec) = MAPS.iter().find(|spec| spec.name == name) {
        spec.check(pin)?;
    }
    MapData::from_pin(pin).and_then(Map::from_map_data).map_err(Error::map(name))
}

/// A pinned hash.
pub(crate) fn hash<K: aya::Pod, V: aya::Pod>(
    dir: &Path,
    name: &'static str,
) -> Result<HashMap<MapData, K, V>, Error> {
    pinned(dir, name)?.try_into().map_err(Error::map(name))
}

/// A pinned array that is memory.
pub(crate) fn mapped<T: bytemuck::Pod>(dir: &Path, name: &'static str) -> Result<Mapped<T>, Error> {
    mapped_at(&dir.join(name), name)
}

/// The same of the map at this pin.
pub(crate) fn mapped_at<T: bytemuck::Pod>(pin: &Path, name: &'static str) -> Result<Mapped<T>, Error> {
    match pinned_at(pin, name)? {
        Map::Array(data) => Mapped::new(&data, name),
        _ => Err(Error::Missing(format!("{} is not an array", pin.display()))),
    }
}
