//! The pinned maps read back as plans: by system calls on each pin, and with nothing of what the dataplane
//! remembers. What no plan could have made is a fault.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use aya::{
    Pod,
    maps::{Array, HashMap, LpmTrie, Map, MapData},
};
use proxy_common::{
    Address, AddressBits, AddressEntry, Endpoint, EndpointState, Frontend, FrontendKey, FrontendKind,
    FrontendLine, FrontendPlace, Port, Reason, Service, ServiceName, SourceRange, SourceRangeKey, Span,
    frontend_lines::Lined, service::EndpointSet,
};

use crate::dataplane::{abi_dir, tables::names};
use crate::plan::{AllowedClients, PlannedEndpoint, ServicePlan, ServicePortId, Target};

/// What the maps say.
#[derive(Default, Debug)]
pub(super) struct Found {
    pub(super) services: BTreeMap<ServicePortId, ServicePlan>,
    pub(super) addresses: BTreeMap<Address, AddressBits>,
    /// Whose each endpoint id in its generation is.
    pub(super) ids: BTreeMap<(u32, u16), Owner>,
    /// And each index.
    pub(super) indexes: BTreeMap<(u32, u16), ServicePortId>,
    pub(super) faults: Vec<String>,
}

/// An endpoint of a Service port.
pub(super) type Owner = (ServicePortId, Address, Port);

/// The maps as they are.
struct Raw {
    names: BTreeMap<u32, ServiceName>,
    frontends: BTreeMap<FrontendKey, Frontend>,
    lines: Vec<FrontendLine>,
    addresses: BTreeMap<Address, AddressEntry>,
    services: Vec<Service>,
    endpoints: Vec<Endpoint>,
    states: Vec<EndpointState>,
    /// By service index and set. A former set may be there until something else is changed.
    ranges: BTreeMap<(u32, u16), BTreeSet<SourceRange>>,
}

/// Reads everything below `pin_dir`.
pub(super) fn read(pin_dir: &Path) -> Found {
    let dir = abi_dir(pin_dir);
    Raw {
        names: hash(&dir, "NAMES"),
        frontends: hash(&dir, "FRONTENDS"),
        lines: array(&dir, "FRONTEND_LINES"),
        addresses: hash(&dir, "ADDRESSES"),
        services: array(&dir, "SERVICES"),
        endpoints: array(&dir, "ENDPOINTS"),
        states: array(&dir, "ENDPOINT_STATE"),
        ranges: ranges(&dir),
    }
    .interpret()
}

/// Removes one of the names, if there is any.
pub(super) fn lose_name(pin_dir: &Path, choose: impl FnOnce(usize) -> usize) {
    let mut names: HashMap<MapData, u32, ServiceName> =
        pinned(&abi_dir(pin_dir), "NAMES").try_into().expect("a hash");
    let indexes: Vec<u32> = names.keys().collect::<Result<_, _>>().expect("every key");
    if !indexes.is_empty() {
        names.remove(&indexes[choose(indexes.len())]).expect("a name");
    }
}

/// Leaves frontends in other lines than theirs, and none in some that have one.
pub(super) fn shift_lines(pin_dir: &Path) {
    let mut lines: Array<MapData, FrontendLine> =
        pinned(&abi_dir(pin_dir), "FRONTEND_LINES").try_into().expect("an array");
    let shifted: Vec<_> = lines.iter().skip(1).collect::<Result<_, _>>().expect("every line");
    for (index, line) in (0..).zip(shifted) {
        lines.set(index, line, 0).expect("a line");
    }
}

impl Raw {
    fn interpret(self) -> Found {
        let mut found = Found::default();
        self.compare_lines(&mut found.faults);
        let mut slots = self.live_slots(&mut found.faults);
        let mut frontends = self.frontends_by_index(&mut found.faults);
        for (index, name) in &self.names {
            let Some(id) = names::from_table(name) else {
                found.faults.push(format!("NAMES {index} is no name: {name:?}"));
                continue;
            };
            let slots = slots.remove(index).unwrap_or_default();
            let frontends = frontends.remove(index).unwrap_or_default();
            let endpoints = slots.iter().filter_map(|slot| self.endpoints.get(*slot as usize));
            found.ids.extend(endpoints.map(|endpoint| {
                ((endpoint.id, endpoint.generation), (id.clone(), endpoint.address, endpoint.port))
            }));
            if let Some(record) = self.services.get(*index as usize) {
                found.indexes.insert((*index, record.generation), id.clone());
            }
            let plan = self.plan(&id, *index, &slots, frontends, &mut found.faults);
            if found.services.insert(id.clone(), plan).is_some() {
                found.faults.push(format!("{id} has two names"));
            }
        }
        for (index, keys) in frontends {
            found.faults.push(format!("orphaned: {keys:?} lead to index {index}, which has no name"));
        }
        for (index, slots) in slots {
            found.faults.push(format!("orphaned: slots {slots:?} are of index {index}, which has no name"));
        }
        for (address, entry) in self.addresses {
            if entry != AddressEntry::new(&address, entry.kind) || entry.kind.is_none() {
                found.faults.push(format!("ADDRESSES {address}: {entry:?}"));
            }
            found.addresses.insert(address, entry.kind);
        }
        found
    }

    /// The slots to which a live id leads, by service index, in order.
    fn live_slots(&self, faults: &mut Vec<String>) -> BTreeMap<u32, BTreeSet<u32>> {
        let mut slots: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
        for (id, state) in self.states.iter().enumerate().filter(|(_, state)| state.bits != 0) {
            match self.endpoints.get(state.slot as usize) {
                Some(endpoint) if (endpoint.id as usize, endpoint.generation) == (id, state.generation) => {
                    slots.entry(endpoint.service).or_default().insert(state.slot);
                }
                other => faults.push(format!("id {id} is {state:?}, but its slot is {other:?}")),
            }
        }
        slots
    }

    /// The lines hold what FRONTENDS does, and nothing else; what is missing in one it says to be elsewhere.
    fn compare_lines(&self, faults: &mut Vec<String>) {
        let lines = u32::try_from(self.lines.len()).expect("a length");
        for (key, value) in &self.frontends {
            let words: [u64; 8] = bytemuck::must_cast(self.lines[key.line(lines) as usize]);
            match FrontendLine::find(key, |word| words[word]) {
                Lined::Found(found) if (found.service, found.kind()) == (value.service, value.kind) => {}
                Lined::Elsewhere => {}
                other => faults.push(format!("FRONTENDS {key}: {value:?}, but its line says {other:?}")),
            }
        }
        let taken = self.lines.iter().flat_map(|line| line.places).filter(|place| place.value.kind != 0);
        let places: Vec<_> = taken.collect();
        for FrontendPlace { address, port, protocol, any_address, guess: _, value } in &places {
            let key = FrontendKey {
                address: *address,
                port: *port,
                protocol: *protocol,
                any_address: *any_address,
                padding: 0,
            };
            if self.frontends.get(&key) != Some(value) {
                faults.push(format!("FRONTEND_LINES {key}: {value:?}, and FRONTENDS has it not"));
            }
        }
        if places.len() > self.frontends.len() {
            faults.push(format!(
                "{} frontends in lines, {} in FRONTENDS",
                places.len(),
                self.frontends.len()
            ));
        }
    }

    fn frontends_by_index(
        &self,
        faults: &mut Vec<String>,
    ) -> BTreeMap<u32, Vec<(FrontendKey, FrontendKind)>> {
        let mut frontends: BTreeMap<u32, Vec<(FrontendKey, FrontendKind)>> = BTreeMap::new();
        for (key, value) in &self.frontends {
            match FrontendKind::from_number(value.kind) {
                Some(kind) if *value == Frontend::new(key, value.service, kind) => {
                    frontends.entry(value.service).or_default().push((*key, kind));
                }
                _ => faults.push(format!("FRONTENDS {key}: {value:?}")),
            }
        }
        frontends
    }

    fn plan(
        &self,
        id: &ServicePortId,
        index: u32,
        slots: &BTreeSet<u32>,
        frontends: Vec<(FrontendKey, FrontendKind)>,
        faults: &mut Vec<String>,
    ) -> ServicePlan {
        let record = self.services[index as usize];
        let first = slots.first().copied().unwrap_or_default();
        let mut target = |span: Span| {
            if let Some(stray) =
                (span.base..span.base.saturating_add(span.count)).find(|slot| !slots.contains(slot))
                && span.count > 0
            {
                faults.push(format!("{id}: {span:?} has slot {stray}, which no live id of it leads to"));
            }
            match span.count {
                0 => Target::Refuse(Reason::from_number(span.base)),
                count => {
                    let start = span.base.wrapping_sub(first);
                    Target::Endpoints(start..start.wrapping_add(count))
                }
            }
        };
        let [cluster, inside, outside] = [record.cluster, record.inside, record.outside].map(&mut target);
        if slots.last().is_some_and(|last| (last - first) as usize + 1 != slots.len()) {
            faults.push(format!("{id}: slots {slots:?} are not one run"));
        }
        let planned = |slot: &u32| {
            let endpoint = self.endpoints[*slot as usize];
            let bits = self.states[endpoint.id as usize].bits;
            let sets = [
                (EndpointSet::Cluster, record.cluster),
                (EndpointSet::Inside, record.inside),
                (EndpointSet::Outside, record.outside),
            ];
            for (set, span) in sets {
                if span.contains(*slot) != (bits & EndpointState::usable(set) != 0) {
                    faults.push(format!("{id}: slot {slot} has bits {bits:#b}, but {set:?} is {span:?}"));
                }
            }
            let serving = bits & EndpointState::SERVING != 0;
            PlannedEndpoint {
                address: endpoint.address,
                port: endpoint.port,
                local: endpoint.is_local(),
                serving,
            }
        };
        let endpoints = slots.iter().map(planned).collect();
        let affinity_seconds = record.affinity_seconds;
        let set = self.ranges.get(&(index, record.source_set));
        let allowed_clients = match record.source_set {
            0 => AllowedClients::Everyone,
            _ => AllowedClients::Only(set.into_iter().flatten().copied().collect()),
        };
        ServicePlan {
            id: id.clone(),
            frontends,
            allowed_clients,
            affinity_seconds,
            endpoints,
            cluster,
            inside,
            outside,
        }
    }
}

fn pinned(dir: &Path, name: &str) -> Map {
    MapData::from_pin(dir.join(name)).and_then(Map::from_map_data).expect("a pinned map")
}

fn hash<K: Pod + Ord, V: Pod>(dir: &Path, name: &str) -> BTreeMap<K, V> {
    let map: HashMap<MapData, K, V> = pinned(dir, name).try_into().expect("a hash");
    map.iter().collect::<Result<_, _>>().expect("every element")
}

fn ranges(dir: &Path) -> BTreeMap<(u32, u16), BTreeSet<SourceRange>> {
    let trie: LpmTrie<MapData, SourceRangeKey, u32> =
        pinned(dir, "SOURCE_RANGES").try_into().expect("a trie");
    let mut sets: BTreeMap<(u32, u16), BTreeSet<SourceRange>> = BTreeMap::new();
    for key in trie.keys() {
        let (length, owner) = key.map(|key| (key.prefix_len(), key.data())).expect("a key");
        let range = SourceRange::from_key(length, &owner).expect("a range");
        sets.entry((owner.service, owner.set)).or_default().insert(range);
    }
    sets
}

fn array<V: Pod>(dir: &Path, name: &str) -> Vec<V> {
    let map: Array<MapData, V> = pinned(dir, name).try_into().expect("an array");
    map.iter().collect::<Result<_, _>>().expect("every element")
}
