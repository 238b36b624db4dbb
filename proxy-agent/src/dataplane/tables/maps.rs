//! The pinned maps and their layouts, and opening one.

use std::path::{Path, PathBuf};

use aya::maps::{HashMap, Map, MapData, MapInfo, lpm_trie::Key};
use proxy_common::{
    ABI, Address, AddressEntry, Affinity, AffinityKey, Asker, ClientAddresses, Datagrams, Endpoint,
    EndpointState, FlowLock, FlowTags, FlowUses, FragmentKey, FragmentPorts, Frontend, FrontendKey,
    FrontendLine, Interface, OverflowKey, Overflowed, Peer, PortOwners, Rate, Record, Service,
    ServiceCounters, ServiceName, ServiceRefusals, SharedPorts, SourceRangeKey, Translation, Tuple,
};

use super::mapped::Mapped;
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
}

const fn spec<K, V>(name: &'static str) -> MapSpec {
    MapSpec { name, key: size_of::<K>(), value: size_of::<V>() }
}

/// All pinned maps.
pub const MAPS: [MapSpec; 36] = [
    spec::<FrontendKey, Frontend>("FRONTENDS"),
    spec::<u32, FrontendLine>("FRONTEND_LINES"),
    spec::<Address, AddressEntry>("ADDRESSES"),
    spec::<u32, Service>("SERVICES"),
    spec::<u32, Endpoint>("ENDPOINTS"),
    spec::<u32, EndpointState>("ENDPOINT_STATE"),
    spec::<u32, Peer>("PEERS"),
    spec::<u32, Translation>("SOCKETS"),
    spec::<u32, Datagrams>("DATAGRAMS"),
    spec::<u64, u64>("NAMESPACES"),
    spec::<OverflowKey, Overflowed>("OVERFLOW"),
    spec::<u32, SharedPorts>("SHARED_PORTS"),
    spec::<AffinityKey, Affinity>("AFFINITY"),
    spec::<Key<SourceRangeKey>, u32>("SOURCE_RANGES"),
    spec::<u64, ClientAddresses>("CLIENTS"),
    spec::<u32, u64>("ADDRESS_FILTER"),
    spec::<u32, u64>("NODE_PORTS"),
    spec::<u32, Record>("FLOWS"),
    spec::<u32, FlowTags>("FLOW_TAGS"),
    spec::<u32, FlowUses>("FLOW_USES"),
    spec::<u32, PortOwners>("SOURCE_PORTS"),
    spec::<u32, u64>("FOREIGN_PORTS"),
    spec::<Tuple, u64>("OUTGOING"),
    spec::<Tuple, u64>("STRAYS"),
    spec::<Asker, u64>("ASKERS"),
    spec::<u32, FlowLock>("FLOW_LOCKS"),
    spec::<u32, u64>("FLOW_SEED"),
    spec::<FragmentKey, FragmentPorts>("FRAGMENTS"),
    spec::<u32, Interface>("INTERFACES"),
    spec::<u32, Rate>("REFUSED_RATE"),
    spec::<u32, Rate>("HELD_RATE"),
    spec::<u32, ServiceCounters>("COUNTERS"),
    spec::<u32, ServiceRefusals>("REFUSALS"),
    spec::<u32, u64>("TOTALS"),
    spec::<u32, ServiceName>("NAMES"),
    spec::<u32, u32>("GRACE"),
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
pub(super) fn room(dir: &Path, name: &'static str) -> Result<u32, Error> {
    Ok(MapInfo::from_pin(dir.join(name)).map_err(Error::map(name))?.max_entries())
}

/// A pinned map, if it is ours.
pub(super) fn pinned(dir: &Path, name: &'static str) -> Result<Map, Error> {
    let path = dir.join(name);
    if let Some(spec) = MAPS.iter().find(|spec| spec.name == name) {
        spec.check(&path)?;
    }
    MapData::from_pin(&path).and_then(Map::from_map_data).map_err(Error::map(name))
}

/// The same, of a hash.
pub(crate) fn hash<K: aya::Pod, V: aya::Pod>(
    dir: &Path,
    name: &'static str,
) -> Result<HashMap<MapData, K, V>, Error> {
    pinned(dir, name)?.try_into().map_err(Error::map(name))
}

/// The same, of an array that is memory.
pub(crate) fn mapped<T: bytemuck::Pod>(dir: &Path, name: &'static str) -> Result<Mapped<T>, Error> {
    match pinned(dir, name)? {
        Map::Array(data) => Mapped::new(&data, name),
        _ => Err(Error::Missing(format!("{name} under {} is not an array", dir.display()))),
    }
}
