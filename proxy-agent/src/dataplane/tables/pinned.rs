//! The pinned maps, typed: for the agent that writes them and for the commands that only look.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use aya::maps::{Array, ArrayOfMaps, HashMap, LpmTrie, MapData, SkStorage, lpm_trie::Key};
use proxy_common::{
    Address, AddressBits, AddressEntry, Affinity, AffinityKey, ClientAddresses, Datagrams, Endpoint,
    EndpointState, Found, Frontend, FrontendKey, Interface, LastRefusal, OverflowKey, Overflowed, Peer,
    Policy, PortOwners, RefusedPair, Service, ServiceCounters, ServiceName, ServiceRefusals, SourceRangeKey,
    Span, Translation,
    counters::{SHARDS, shard},
    frontend_lines::Lined,
    service::EndpointSet,
};

use super::{
    bitmaps::{AddressFilter, ForeignPorts, NodePorts},
    flow_table::FlowTable,
    growth,
    lines::FrontendLines,
    mapped::Mapped,
    maps::{abi_dir, hash, mapped, mapped_at, pinned, pinned_at, room_at},
};
use crate::dataplane::Error;

/// The tables of one pin directory.
pub struct Tables {
    /// FRONTENDS.
    pub frontends: HashMap<MapData, FrontendKey, Frontend>,
    /// FRONTEND_LINES.
    pub lines: FrontendLines,
    /// ADDRESSES.
    pub addresses: HashMap<MapData, Address, AddressEntry>,
    /// NAMES.
    pub names: HashMap<MapData, u32, ServiceName>,
    /// AFFINITY.
    pub affinities: HashMap<MapData, AffinityKey, Affinity>,
    /// SOURCE_RANGES.
    pub source_ranges: LpmTrie<MapData, SourceRangeKey, u32>,
    /// FLOWS.
    pub flows: FlowTable,
    /// CLIENTS.
    pub clients: HashMap<MapData, u64, ClientAddresses>,
    /// SERVICES.
    pub services: Mapped<Service>,
    /// ENDPOINTS.
    pub endpoints: Mapped<Endpoint>,
    /// ENDPOINT_STATE.
    pub states: Mapped<EndpointState>,
    /// COUNTERS.
    pub counters: Mapped<ServiceCounters>,
    /// REFUSALS.
    pub refusals: Mapped<ServiceRefusals>,
    /// TOTALS.
    pub totals: Mapped<u64>,
    has_flows: bool,
    frontends_room: u32,
    affinities_room: u32,
    source_ranges_room: u32,
}

impl fmt::Debug for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tables").finish_non_exhaustive()
    }
}

impl Tables {
    /// Opens the tables pinned below `pin_dir`.
    pub fn open(pin_dir: &Path) -> Result<Self, Error> {
        let dir = abi_dir(pin_dir);
        if !dir.join("FRONTENDS").exists() {
            return Err(Error::NoTables(pin_dir.display().to_string()));
        }
        Pins { next: false, known: None, dir }.open()
    }

    /// Opens the same tables once more, in the same memory, for somebody else in this process.
    pub(crate) fn again(&self, pin_dir: &Path) -> Result<Self, Error> {
        Pins { next: false, known: Some(self), dir: abi_dir(pin_dir) }.open()
    }

    /// Opens those that are to follow these (`growth`), and these where nothing is to follow.
    pub(super) fn next(&self, pin_dir: &Path) -> Result<Self, Error> {
        Pins { next: true, known: Some(self), dir: abi_dir(pin_dir) }.open()
    }

    /// Opens the tables that are to follow those below `pin_dir`, and those where nothing is to follow.
    pub(crate) fn open_next(pin_dir: &Path) -> Result<Self, Error> {
        Pins { next: true, known: None, dir: abi_dir(pin_dir) }.open()
    }

    /// Opens SOURCE_PORTS, to fill it.
    pub(crate) fn source_ports(pin_dir: &Path) -> Result<Mapped<PortOwners>, Error> {
        mapped(&abi_dir(pin_dir), "SOURCE_PORTS")
    }

    /// Opens the SOURCE_PORTS that are to follow, to fill them; `None` where none are.
    pub(crate) fn next_source_ports(pin_dir: &Path) -> Result<Option<Mapped<PortOwners>>, Error> {
        let place = growth::next(&abi_dir(pin_dir), "SOURCE_PORTS");
        place.exists().then(|| mapped_at(&place, "SOURCE_PORTS")).transpose()
    }

    /// Opens ADDRESS_FILTER, which only the writer needs.
    pub(crate) fn address_filter(pin_dir: &Path) -> Result<AddressFilter, Error> {
        Ok(AddressFilter(mapped(&abi_dir(pin_dir), "ADDRESS_FILTER")?))
    }

    /// Opens NODE_PORTS, which only the writer needs.
    pub(crate) fn node_ports(pin_dir: &Path) -> Result<NodePorts, Error> {
        Ok(NodePorts(mapped(&abi_dir(pin_dir), "NODE_PORTS")?))
    }

    /// Opens FOREIGN_PORTS, which only its follower needs.
    pub(crate) fn foreign_ports(pin_dir: &Path) -> Result<ForeignPorts, Error> {
        Ok(ForeignPorts(mapped(&abi_dir(pin_dir), "FOREIGN_PORTS")?))
    }

    /// Opens INTERFACES, which only the writer needs.
    pub(crate) fn interfaces(pin_dir: &Path) -> Result<HashMap<MapData, u32, Interface>, Error> {
        hash(&abi_dir(pin_dir), "INTERFACES")
    }

    /// Opens CLIENTS for the one that writes it.
    pub(crate) fn clients(pin_dir: &Path) -> Result<HashMap<MapData, u64, ClientAddresses>, Error> {
        hash(&abi_dir(pin_dir), "CLIENTS")
    }

    /// Opens BYPASSED: for the one that writes it, and for commands.
    pub(crate) fn bypassed(pin_dir: &Path) -> Result<HashMap<MapData, u64, u64>, Error> {
        hash(&abi_dir(pin_dir), "BYPASSED")
    }

    /// Whom the programs refused what, as far as LAST_REFUSALS has it. Tables of older versions do not have it.
    pub fn last_refusals(pin_dir: &Path) -> Result<Vec<(RefusedPair, LastRefusal)>, Error> {
        let dir = abi_dir(pin_dir);
        if !dir.join("LAST_REFUSALS").exists() {
            return Ok(Vec::new());
        }
        let table = hash::<RefusedPair, LastRefusal>(&dir, "LAST_REFUSALS")?;
        // An element may go between its key and its value.
        Ok(table
            .keys()
            .filter_map(Result::ok)
            .filter_map(|pair| Some((pair, table.get(&pair, 0).ok()?)))
            .collect())
    }

    /// Opens GRACE, which only the writer needs.
    pub(crate) fn grace(pin_dir: &Path) -> Result<ArrayOfMaps<MapData, Array<MapData, u32>>, Error> {
        pinned(&abi_dir(pin_dir), "GRACE")?.try_into().map_err(Error::map("GRACE"))
    }

    /// Opens NAMESPACES, which only the search for stale sockets needs.
    pub(crate) fn namespaces(pin_dir: &Path) -> Result<HashMap<MapData, u64, u64>, Error> {
        hash(&abi_dir(pin_dir), "NAMESPACES")
    }

    /// Opens SOCKETS, whose elements are found by descriptors of sockets.
    pub(crate) fn sockets(pin_dir: &Path) -> Result<SkStorage<MapData, Translation>, Error> {
        pinned(&abi_dir(pin_dir), "SOCKETS")?.try_into().map_err(Error::map("SOCKETS"))
    }

    /// Opens PEERS, which only the sweep needs.
    pub(crate) fn peers(pin_dir: &Path) -> Result<Array<MapData, Peer>, Error> {
        pinned(&abi_dir(pin_dir), "PEERS")?.try_into().map_err(Error::map("PEERS"))
    }

    /// Opens OVERFLOW, which only the sweep needs.
    pub(crate) fn overflow(pin_dir: &Path) -> Result<HashMap<MapData, OverflowKey, Overflowed>, Error> {
        hash(&abi_dir(pin_dir), "OVERFLOW")
    }

    /// Opens DATAGRAMS, as SOCKETS.
    pub(crate) fn datagrams(pin_dir: &Path) -> Result<SkStorage<MapData, Datagrams>, Error> {
        pinned(&abi_dir(pin_dir), "DATAGRAMS")?.try_into().map_err(Error::map("DATAGRAMS"))
    }

    /// How many entries FRONTENDS has room for.
    pub fn frontends_room(&self) -> u32 {
        self.frontends_room
    }

    /// How many north-south connections there is room for; 0 before the first Service can be reached from outside.
    pub fn flows_room(&self) -> u32 {
        if self.has_flows { self.flows.room() } else { 0 }
    }

    /// How many entries AFFINITY has room for.
    pub fn affinities_room(&self) -> u32 {
        self.affinities_room
    }

    /// How many entries SOURCE_RANGES has room for.
    pub fn source_ranges_room(&self) -> u32 {
        self.source_ranges_room
    }

    /// Connections of the Service at `index`, over all shards.
    pub fn counted(&self, index: u32) -> ServiceCounters {
        let mut sum = ServiceCounters::default();
        for element in self.shards(index) {
            if let Some(ServiceCounters { drawn, remembered }) = self.counters.load(element) {
                sum.drawn += drawn;
                sum.remembered += remembered;
            }
        }
        sum
    }

    /// Refusals of the Service at `index`.
    pub fn refused(&self, index: u32) -> ServiceRefusals {
        self.refusals.load(index).unwrap_or_default()
    }

    /// Begins to count anew for an index that another Service had.
    pub(crate) fn reset_counters(&self, index: u32) {
        for element in self.shards(index) {
            self.counters.store(element, &ServiceCounters::default());
        }
        self.refusals.store(index, &ServiceRefusals::default());
    }

    fn shards(&self, index: u32) -> impl Iterator<Item = u32> {
        let services = self.services.len();
        (0..SHARDS).map(move |cpu| shard(cpu, index, services))
    }
}

/// Where tables are opened from.
struct Pins<'a> {
    dir: PathBuf,
    /// Whether those that follow are wanted.
    next: bool,
    /// Tables of this process that are mapped already.
    known: Option<&'a Tables>,
}

impl Pins<'_> {
    fn open(&self) -> Result<Tables, Error> {
        let source_ranges = pinned_at(&self.place("SOURCE_RANGES"), "SOURCE_RANGES")?;
        Ok(Tables {
            frontends: self.hash("FRONTENDS")?,
            lines: FrontendLines(self.mapped("FRONTEND_LINES", |known| &known.lines.0)?),
            addresses: self.hash("ADDRESSES")?,
            names: self.hash("NAMES")?,
            affinities: self.hash("AFFINITY")?,
            source_ranges: source_ranges.try_into().map_err(Error::map("SOURCE_RANGES"))?,
            clients: self.hash("CLIENTS")?,
            flows: FlowTable::new(
                self.mapped("FLOWS", |known| known.flows.records())?,
                self.mapped("FLOW_TAGS", |known| known.flows.tags())?,
                self.mapped("FLOW_USES", |known| known.flows.uses())?,
                &mapped_at(&self.place("FLOW_SEED"), "FLOW_SEED")?,
            ),
            has_flows: self.room("SOURCE_PORTS")? > 1,
            services: self.mapped("SERVICES", |known| &known.services)?,
            endpoints: self.mapped("ENDPOINTS", |known| &known.endpoints)?,
            states: self.mapped("ENDPOINT_STATE", |known| &known.states)?,
            counters: self.mapped("COUNTERS", |known| &known.counters)?,
            refusals: self.mapped("REFUSALS", |known| &known.refusals)?,
            totals: self.mapped("TOTALS", |known| &known.totals)?,
            frontends_room: self.room("FRONTENDS")?,
            affinities_room: self.room("AFFINITY")?,
            source_ranges_room: self.room("SOURCE_RANGES")?,
        })
    }

    /// A table's pin.
    fn place(&self, name: &str) -> PathBuf {
        let next = growth::next(&self.dir, name);
        if self.next && next.exists() { next } else { self.dir.join(name) }
    }

    fn hash<K: aya::Pod, V: aya::Pod>(&self, name: &'static str) -> Result<HashMap<MapData, K, V>, Error> {
        pinned_at(&self.place(name), name)?.try_into().map_err(Error::map(name))
    }

    fn room(&self, name: &'static str) -> Result<u32, Error> {
        room_at(&self.place(name), name)
    }

    /// Maps a table, unless this process has.
    fn mapped<T: bytemuck::Pod>(
        &self,
        name: &'static str,
        known: impl Fn(&Tables) -> &Mapped<T>,
    ) -> Result<Mapped<T>, Error> {
        let place = self.place(name);
        match self.known {
            Some(tables) if place == self.dir.join(name) => Ok(known(tables).clone()),
            _ => mapped_at(&place, name),
        }
    }
}

/// The decision on the pinned tables, as `sidestep explain` makes it: reads only.
impl proxy_common::Tables for Tables {
    fn frontend(&self, key: &FrontendKey) -> Option<Found> {
        match self.lines.find(key) {
            Lined::Found(found) => Some(found),
            Lined::Elsewhere => self.frontends.get(key, 0).ok().map(Found::from),
            Lined::Nowhere => None,
        }
    }

    fn address(&self, address: &Address) -> AddressBits {
        self.addresses.get(address, 0).map_or(AddressBits::NONE, |entry| entry.kind)
    }

    fn span(&self, service: u32, set: EndpointSet) -> Option<Span> {
        let record = self.services.load(service)?;
        Some(match set {
            EndpointSet::Cluster => record.cluster,
            EndpointSet::Inside => record.inside,
            EndpointSet::Outside => record.outside,
        })
    }

    fn policy(&self, service: u32) -> Option<Policy> {
        self.services.load(service).map(|record| record.policy())
    }

    fn endpoint(&self, slot: u32) -> Option<Endpoint> {
        self.endpoints.load(slot)
    }

    fn endpoint_state(&self, id: u32) -> Option<EndpointState> {
        self.states.load(id)
    }

    fn affinity(&self, key: &AffinityKey) -> Option<Affinity> {
        self.affinities.get(key, 0).ok()
    }

    fn remember(&self, _: &AffinityKey, _: &Affinity) {}

    fn refresh(&self, _: &AffinityKey, _: u64) {}

    fn admits(&self, service: u32, set: u16, source: &Address) -> bool {
        let key = Key::new(SourceRangeKey::ALL_BITS, SourceRangeKey::new(service, set, *source));
        self.source_ranges.get(&key, 0).is_ok()
    }

    fn client(&self, cookie: u64) -> Option<ClientAddresses> {
        self.clients.get(&cookie, 0).ok().filter(|found| found.is_of(cookie))
    }
}
