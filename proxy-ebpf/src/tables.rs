//! The maps, and how the decision reads them.
//!
//! Two hazards shape every read here. An array's word may change at any moment: the program reads it once, volatile,
//! and uses only that copy. The kernel may delete a hash element and reuse it for another key while a preempted
//! program reads it: the value is one word with a fingerprint of the key, copied at once; if the fingerprint belongs
//! to another key, the program repeats the lookup.

use core::arch::asm;

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::{
        Array, ArrayOfMaps, HashMap, HashOfMaps, LpmTrie, LruHashMap, ProgramArray, RingBuf, SkStorage,
        lpm_trie::Key,
    },
    macros::btf_map,
};
use proxy_common::{
    Address, AddressBits, AddressEntry, Affinity, AffinityKey, Asker, ClientAddresses, Datagrams, Endpoint,
    EndpointState, Event, FlowLock, FlowTags, FlowUses, Found, FragmentKey, FragmentPorts, Frontend,
    FrontendKey, FrontendLine, Interface, LastRefusal, Listener, NodeEvent, OverflowKey, Overflowed, Peer,
    Policy, Port, PortOwners, Rate, Record, RefusedPair, Service, ServiceCounters, ServiceName,
    ServiceRefusals, SharedPorts, SourceRangeKey, Span, Tables, Translation, Tuple, address,
    connection::{self, Draft, SourcePorts, buckets, foreign_bit},
    counters::SHARDS,
    event, frontend,
    frontend_lines::Lined,
    peer,
    service::EndpointSet,
    translation,
};

use crate::{config, count};

const MMAPABLE: usize = 1 << 10; // BPF_F_MMAPABLE, 5.5
const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;

// Default lengths; the loader may set others before it creates the maps.
const SERVICES_LEN: usize = 1 << 17;
const FRONTENDS_LEN: usize = 1 << 18;
const ENDPOINTS_LEN: usize = 1 << 18;
const CLIENTS_LEN: usize = 1 << 16;
const NAMESPACES_LEN: usize = 1 << 13;
const SOURCE_RANGES_LEN: usize = 1 << 16;
const FLOW_REGIONS: usize = 147;
const FLOW_BUCKETS: usize = FLOW_REGIONS * buckets::REGION as usize;
const FLOWS_LEN: usize = FLOW_BUCKETS * buckets::SLOTS as usize;
const SOURCE_PORTS_LEN: usize = 1 << 16;
const OUTGOING_LEN: usize = 1 << 12;
const ASKERS_LEN: usize = 1 << 10;
const STRAYS_LEN: usize = 1 << 9;
const FRAGMENTS_LEN: usize = 1 << 12;
const INTERFACES_LEN: usize = 1 << 10;
const LAST_REFUSALS_LEN: usize = 1 << 11;
/// The longest page of any kernel, of which a ring buffer is a multiple.
const PAGE: usize = 1 << 16;

/// Frontends: address, port and protocol to Service. Not preallocated: memory grows with the entries.
#[btf_map]
pub(crate) static FRONTENDS: HashMap<FrontendKey, Frontend, FRONTENDS_LEN, NO_PREALLOC> = HashMap::new();

/// The same, two to a cache line.
#[btf_map]
pub(crate) static FRONTEND_LINES: Array<
    FrontendLine,
    { FrontendLine::lines(FRONTENDS_LEN as u32) as usize },
    MMAPABLE,
> = Array::new();

/// Addresses that are a ClusterIP, another VIP, or an address of this node.
#[btf_map]
pub(crate) static ADDRESSES: HashMap<Address, AddressEntry, FRONTENDS_LEN, NO_PREALLOC> = HashMap::new();

/// One record for each Service port and family.
#[btf_map]
pub(crate) static SERVICES: Array<Service, SERVICES_LEN, MMAPABLE> = Array::new();

/// The slots that spans point into.
#[btf_map]
pub(crate) static ENDPOINTS: Array<Endpoint, ENDPOINTS_LEN, MMAPABLE> = Array::new();

/// State of an endpoint, by its id: its slot, and for which clients it is usable.
#[btf_map]
pub(crate) static ENDPOINT_STATE: Array<EndpointState, ENDPOINTS_LEN, MMAPABLE> = Array::new();

/// The connected peer of a TCP socket.
#[btf_map]
pub(crate) static PEERS: Array<Peer, { peer::PEERS as usize }> = Array::new();

/// The connected peer of a UDP socket, and of a TCP socket whose element of PEERS another socket holds.
#[btf_map]
pub(crate) static SOCKETS: SkStorage<Translation> = SkStorage::new();

/// The other peers of a UDP socket.
#[btf_map]
pub(crate) static DATAGRAMS: SkStorage<Datagrams> = SkStorage::new();

/// Cookies of the network namespaces that ever connected a UDP socket to a Service; the values are unused. The agent
/// searches for stale sockets only there, and removes namespaces that are gone.
#[btf_map]
pub(crate) static NAMESPACES: HashMap<u64, u64, NAMESPACES_LEN, NO_PREALLOC> = HashMap::new();

/// Translations that the sockets' own records cannot hold, or that other sockets of the same port need.
#[btf_map]
pub(crate) static OVERFLOW: HashMap<OverflowKey, Overflowed, { translation::OVERFLOW }, NO_PREALLOC> =
    HashMap::new();

/// For which local ports OVERFLOW may have translations.
#[btf_map]
pub(crate) static SHARED_PORTS: Array<SharedPorts, { translation::SHARED_PORTS }> = Array::new();

/// ClientIP affinity.
#[btf_map]
pub(crate) static AFFINITY: LruHashMap<AffinityKey, Affinity, CLIENTS_LEN> = LruHashMap::new();

/// Clients that may use a LoadBalancer IP, for Services with source ranges; the values are unused. The kernel frees
/// an element of a trie only after a grace period, so a lookup never meets one reused for another key.
#[btf_map]
pub(crate) static SOURCE_RANGES: LpmTrie<SourceRangeKey, u32, SOURCE_RANGES_LEN> = LpmTrie::new();

/// The addresses of a network namespace, by its cookie, against which source ranges check its sockets. Empty while no
/// Service has source ranges.
#[btf_map]
pub(crate) static CLIENTS: HashMap<u64, ClientAddresses, NAMESPACES_LEN, NO_PREALLOC> = HashMap::new();

/// Network namespaces that the agent has looked at, by cookie: why the socket programs pass one by, a
/// [`proxy_common::PassedBy`], or 0 if they do not.
#[btf_map]
pub(crate) static BYPASSED: HashMap<u64, u64, NAMESPACES_LEN, NO_PREALLOC> = HashMap::new();

/// A filter of the addresses that are worth a lookup for an arriving packet: one bit for each hash value.
#[btf_map]
pub(crate) static ADDRESS_FILTER: Array<u64, { address::FILTER_WORDS as usize }, MMAPABLE> = Array::new();

/// The numbers of UDP NodePorts, one bit each.
#[btf_map]
pub(crate) static NODE_PORTS: Array<u64, { frontend::NODE_PORT_WORDS as usize }, MMAPABLE> = Array::new();

/// North-south connections and UDP flows, one record each. The agent maps it read-only.
#[btf_map]
pub(crate) static FLOWS: Array<Record, FLOWS_LEN, MMAPABLE> = Array::new();

/// Tags of the clients that own the slots of FLOWS, bucket by bucket.
#[btf_map]
pub(crate) static FLOW_TAGS: Array<FlowTags, FLOW_BUCKETS, MMAPABLE> = Array::new();

/// When each slot of FLOWS was last used, and whether it may be evicted. The agent releases those of idle
/// connections.
#[btf_map]
pub(crate) static FLOW_USES: Array<FlowUses, FLOW_BUCKETS, MMAPABLE> = Array::new();

/// Records that use a source port.
#[btf_map]
pub(crate) static SOURCE_PORTS: Array<PortOwners, SOURCE_PORTS_LEN, MMAPABLE> = Array::new();

/// Source ports of connections that conntrack masquerades, one bit for each hash value.
#[btf_map]
pub(crate) static FOREIGN_PORTS: Array<u64, { connection::FOREIGN_WORDS as usize }, MMAPABLE> = Array::new();

/// Datagrams without a record that left the node from the number of a NodePort, or exchanges of kube-proxy's, and when, in
/// seconds since boot.
#[btf_map]
pub(crate) static OUTGOING: LruHashMap<Tuple, u64, OUTGOING_LEN> = LruHashMap::new();

/// Peers that sent to a socket bound to the number of a NodePort, and when, in nanoseconds since boot.
#[btf_map]
pub(crate) static ASKERS: LruHashMap<Asker, u64, ASKERS_LEN> = LruHashMap::new();

/// Strays: fast-path connections of which the stack still saw a packet, from the client to the endpoint, and when.
/// The agent removes their conntrack entries when they end.
#[btf_map]
pub(crate) static STRAYS: LruHashMap<Tuple, u64, STRAYS_LEN> = LruHashMap::new();

/// The value of `FLOW_HASH_SEED`, for the next agent. No program reads it.
#[btf_map]
pub(crate) static FLOW_SEED: Array<u64, 1, MMAPABLE> = Array::new();

/// While connections move to bigger tables: the packet programs on those, by [`proxy_common::PacketHook::place`]. Not
/// pinned: each set of programs has its own, which the kernel empties when the agent that filled it ends.
#[btf_map]
pub(crate) static SUCCESSORS: ProgramArray<5> = ProgramArray::new();

/// Which source ports are drawn: a [`proxy_common::connection::PortShare`]. Not pinned, as SUCCESSORS.
#[btf_map]
pub(crate) static PORT_SHARE: Array<u32, 1> = Array::new();

/// Locks for taking a slot of FLOWS or a source port.
#[btf_map]
pub(crate) static FLOW_LOCKS: Array<FlowLock, { buckets::FLOW_LOCKS as usize }> = Array::new();

/// The ports of fragmented datagrams.
#[btf_map]
pub(crate) static FRAGMENTS: LruHashMap<FragmentKey, FragmentPorts, FRAGMENTS_LEN> = LruHashMap::new();

/// The node's address on each uplink, and the longest packet that it takes, by the device's index.
#[btf_map]
pub(crate) static INTERFACES: HashMap<u32, Interface, INTERFACES_LEN, NO_PREALLOC> = HashMap::new();

/// Rate limit of answered refusals.
#[btf_map]
pub(crate) static REFUSED_RATE: Array<Rate, 1> = Array::new();

/// Whom the programs refused what, since when and how often.
#[btf_map]
pub(crate) static LAST_REFUSALS: LruHashMap<RefusedPair, LastRefusal, LAST_REFUSALS_LEN> = LruHashMap::new();

/// Rate limits of what is new to LAST_REFUSALS: of sockets, and of packets.
#[btf_map]
pub(crate) static RECORDED_RATE: Array<Rate, 2> = Array::new();

/// Until when anybody listens to events, in nanoseconds since boot; 0 while nobody does.
#[btf_map]
pub(crate) static LISTENING: Array<u64, 1, MMAPABLE> = Array::new();

/// Who listens, and for what.
#[btf_map]
pub(crate) static LISTENERS: Array<Listener, { event::LISTENERS as usize }, MMAPABLE> = Array::new();

/// The buffer of each listener, which makes it, longer than this one.
#[btf_map]
pub(crate) static EVENTS: HashOfMaps<u32, RingBuf<Event, PAGE>, { event::LISTENERS as usize }> =
    HashOfMaps::new();

/// Rate limit of held fragments.
#[btf_map]
pub(crate) static HELD_RATE: Array<Rate, 1> = Array::new();

/// Connections of each Service, counted in shards.
#[btf_map]
pub(crate) static COUNTERS: Array<ServiceCounters, { SERVICES_LEN * SHARDS as usize }, MMAPABLE> =
    Array::new();

/// Refusals of each Service, by reason.
#[btf_map]
pub(crate) static REFUSALS: Array<ServiceRefusals, SERVICES_LEN, MMAPABLE> = Array::new();

/// Refusals by reason and other totals of the node.
#[btf_map]
pub(crate) static TOTALS: Array<u64, { NodeEvent::LIMIT as usize }, MMAPABLE> = Array::new();

/// The Service port that an index stands for. No program reads it; commands and a restarted agent do.
#[btf_map]
pub(crate) static NAMES: HashMap<u32, ServiceName, SERVICES_LEN, NO_PREALLOC> = HashMap::new();

/// No program reads it. An update of an array of maps makes the kernel wait until all running programs have ended
/// (`maybe_wait_bpf_programs`); the agent uses that as the grace period before it reuses slots and ids.
#[btf_map]
pub(crate) static GRACE: ArrayOfMaps<Array<u32, 1>, 1> = ArrayOfMaps::new();

/// The maps as [`Tables`].
pub(crate) struct Maps;

/// Copies the 64-bit word at `pointer`.
///
/// # Safety
/// `pointer` points to eight aligned bytes of a map's value.
#[inline(always)]
unsafe fn word<T>(pointer: *const T) -> u64 {
    // SAFETY: guaranteed by the caller.
    unsafe { pointer.cast::<u64>().read_volatile() }
}

/// A word that the compiler knows nothing of: else it sees where it comes from, and makes branches of that.
#[inline(always)]
pub(crate) fn opaque(word: u64) -> u64 {
    let mut word = word;
    // SAFETY: it touches one register.
    unsafe { asm!("{0} += 0", inout(reg) word, options(nomem, nostack)) };
    word
}

impl Maps {
    /// Whether the address may be in ADDRESSES or belong to the node. `false` is certain.
    #[inline(always)]
    pub(crate) fn may_be_ours(address: &Address) -> bool {
        let (index, bit) = address.filter_bit();
        let Some(pointer) = ADDRESS_FILTER.get_ptr(index) else { return false };
        // SAFETY: the value of ADDRESS_FILTER is one aligned word.
        let bits = unsafe { word(pointer) };
        bits & bit != 0
    }

    /// Whether conntrack may have a connection to the endpoint of the draft that is masqueraded with its port.
    #[inline(always)]
    pub(crate) fn may_be_foreign(draft: &Draft) -> bool {
        let Draft { ends, origin, .. } = draft;
        let (index, bit) = foreign_bit(&ends.endpoint, ends.endpoint_port, ends.protocol, origin.source_port);
        let Some(pointer) = FOREIGN_PORTS.get_ptr(index) else { return false };
        // SAFETY: the value of FOREIGN_PORTS is one aligned word.
        let bits = unsafe { word(pointer) };
        bits & bit != 0
    }

    /// Those of the source ports that these programs may draw now.
    #[inline(always)]
    pub(crate) fn drawn_ports(ports: SourcePorts) -> SourcePorts {
        let Some(share) = PORT_SHARE.get_ptr(0) else { return ports };
        // SAFETY: the value of PORT_SHARE, which only the agent writes.
        ports.share(unsafe { share.read_volatile() })
    }

    /// Whether connections are, or were, masqueraded with this port.
    #[inline(always)]
    pub(crate) fn has_owners(port: Port) -> bool {
        let Some(owners) = SOURCE_PORTS.get_ptr(port.number.into()) else { return false };
        // SAFETY: the first word of a value of SOURCE_PORTS.
        let tags = unsafe { word(owners) };
        tags != 0
    }

    /// The word of a frontend that has no place in its line; 0 if there is none.
    #[inline(always)]
    fn unlined(key: &FrontendKey) -> u64 {
        let first = Self::frontend_word(key);
        let frontend = match Frontend::read(first, key) {
            None if first != 0 => Frontend::read(Self::frontend_word(key), key),
            known => known,
        };
        frontend.map_or(0, |frontend| Found::from(frontend).word())
    }

    #[inline(always)]
    fn frontend_word(key: &FrontendKey) -> u64 {
        match FRONTENDS.get_ptr(key) {
            // SAFETY: the value of FRONTENDS is one aligned word.
            Some(pointer) => unsafe { word(pointer) },
            None => 0,
        }
    }

    /// The entry of an address; without bits if there is none, as every entry has bits. (Not an `Option`: LLVM
    /// reads its content before it checks whether there is any, which the verifier rejects.)
    #[inline(always)]
    fn address_once(address: &Address) -> AddressEntry {
        let word = match ADDRESSES.get_ptr(address) {
            // SAFETY: the value of ADDRESSES is one aligned word.
            Some(pointer) => unsafe { word(pointer) },
            None => 0,
        };
        bytemuck::must_cast(word)
    }

    #[inline(always)]
    fn client_once(cookie: u64) -> Option<ClientAddresses> {
        let pointer = CLIENTS.get_ptr(&cookie)?.cast::<u64>();
        // SAFETY: the value of CLIENTS is three aligned words; its checksum says whether they belong together.
        let words: [u64; 3] = unsafe { [word(pointer), word(pointer.add(1)), word(pointer.add(2))] };
        Some(bytemuck::must_cast(words))
    }
}

/// A key of SOURCE_RANGES in whole words: the compiler would assemble a packed key byte by byte.
#[repr(C)]
struct SourceQuery {
    prefix_length: u32,
    service: u32,
    set: u32,
    address: [u32; 4],
}

const _: () = assert!(size_of::<SourceQuery>() == size_of::<Key<SourceRangeKey>>());

/// [`Tables::expect`]. A global function, which the verifier walks once, and not before every way that the choice may take.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn expect_choice(service: u32, slot: u32) -> u32 {
    count::expect(service);
    if let Some(endpoint) = ENDPOINTS.get_ptr(slot) {
        // SAFETY: an aligned word of the map's element.
        unsafe { word(endpoint) };
    }
    0
}

impl Tables for Maps {
    #[inline(always)]
    fn frontend(&self, key: &FrontendKey) -> Option<Found> {
        let line = FRONTEND_LINES.get_ptr(key.line(config::frontend_lines()))?.cast::<u64>();
        // SAFETY: the line's words, which are aligned.
        let found = match FrontendLine::find(key, |place| unsafe { word(line.add(place)) }) {
            Lined::Found(found) => found.word(),
            Lined::Elsewhere => Self::unlined(key),
            Lined::Nowhere => 0,
        };
        // The ways to an answer meet here: the compiler would repeat what follows for each, and the verifier walk it.
        Found::from_word(opaque(found))
    }

    /// Loads that nothing waits for: of memory that the choice touches one after the other.
    #[inline(always)]
    fn expect(&self, frontend: &Found) {
        expect_choice(frontend.service, frontend.guess());
    }

    #[inline(always)]
    fn address(&self, address: &Address) -> AddressBits {
        let first = Self::address_once(address);
        if first.kind.is_none() || first.fingerprint == address.fingerprint() {
            return first.kind;
        }
        let second = Self::address_once(address);
        if second.fingerprint == address.fingerprint() { second.kind } else { AddressBits::NONE }
    }

    #[inline(always)]
    fn span(&self, service: u32, set: EndpointSet) -> Option<Span> {
        let record = SERVICES.get_ptr(service)?;
        // SAFETY: the spans are the first three words of the record, and `set` is 0, 1 or 2.
        Some(bytemuck::must_cast::<u64, Span>(unsafe { word(record.cast::<Span>().add(set as usize)) }))
    }

    #[inline(always)]
    fn policy(&self, service: u32) -> Option<Policy> {
        let record = SERVICES.get_ptr(service)?;
        // SAFETY: the policy is the record's fourth word, which begins with the seconds.
        Some(Policy::from_word(unsafe { word(&raw const (*record).affinity_seconds) }))
    }

    #[inline(always)]
    fn endpoint(&self, slot: u32) -> Option<Endpoint> {
        let pointer = ENDPOINTS.get_ptr(slot)?;
        // SAFETY: a slot is written before a span refers to it, and not while one does.
        Some(unsafe { *pointer })
    }

    #[inline(always)]
    fn endpoint_state(&self, id: u32) -> Option<EndpointState> {
        let pointer = ENDPOINT_STATE.get_ptr(id)?;
        // SAFETY: the value of ENDPOINT_STATE is one aligned word.
        Some(bytemuck::must_cast::<u64, EndpointState>(unsafe { word(pointer) }))
    }

    #[inline(always)]
    fn affinity(&self, key: &AffinityKey) -> Option<Affinity> {
        let pointer = AFFINITY.get_ptr(key)?;
        // SAFETY: the value is two aligned words; the first is copied as one.
        let (first, last_used) = unsafe { (word(pointer), word(&raw const (*pointer).last_used)) };
        let affinity = Affinity {
            endpoint: first as u32,
            generation: (first >> 32) as u16,
            fingerprint: (first >> 48) as u16,
            last_used,
        };
        (affinity.fingerprint == key.fingerprint()).then_some(affinity)
    }

    #[inline(always)]
    fn remember(&self, key: &AffinityKey, affinity: &Affinity) {
        // A full LRU makes room. If the insertion fails, the client has no affinity, but is served.
        let _ = AFFINITY.insert(key, affinity, 0);
    }

    #[inline(always)]
    fn refresh(&self, key: &AffinityKey, now: u64) {
        if let Some(pointer) = AFFINITY.get_ptr_mut(key) {
            // SAFETY: one aligned word of a map's value. If the LRU has reused the element for another client, its
            // affinity lasts a moment longer.
            unsafe { (&raw mut (*pointer).last_used).write_volatile(now) };
        }
    }

    #[inline(always)]
    fn admits(&self, service: u32, set: u16, source: &Address) -> bool {
        let query = SourceQuery {
            prefix_length: SourceRangeKey::ALL_BITS,
            service,
            set: u32::from(set),
            address: source.words(),
        };
        // SAFETY: a `Key<SourceRangeKey>` has the same bytes, packed; the alignment exceeds what it needs.
        let key = unsafe { &*(&raw const query).cast::<Key<SourceRangeKey>>() };
        SOURCE_RANGES.get(key).is_some()
    }

    #[inline(always)]
    fn client(&self, cookie: u64) -> Option<ClientAddresses> {
        match Self::client_once(cookie) {
            Some(found) if found.is_of(cookie) => Some(found),
            Some(_) => Self::client_once(cookie).filter(|found| found.is_of(cookie)),
            None => None,
        }
    }
}
