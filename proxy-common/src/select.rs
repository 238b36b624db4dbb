//! The decision: which endpoint does this client get?
//!
//! It has two halves, and every caller calls both: [`resolve`] (is there a Service at this address?) and [`choose`]
//! (which of its endpoints?). In between the programs check records of their own: connect4 and connect6 whether the
//! socket is the agent's, sendmsg4 and sendmsg6 which endpoint the socket's datagrams had before, the packet programs
//! whether the node itself began the conversation. [`select()`] runs both in a row for callers without such records:
//! `sidestep explain` and the tests.
//!
//! It reads the maps through [`Tables`], takes clock and randomness as arguments, and changes nothing but AFFINITY.
//! It returns only endpoints of the set that the Service's spans name at the moment of reading.

use crate::{
    address::{Address, AddressBits},
    affinity::{Affinity, AffinityKey},
    clients::ClientAddresses,
    endpoint::{Endpoint, EndpointState},
    frontend::{Found, FrontendKey, FrontendKind},
    reason::Reason,
    scope::Scope,
    service::{EndpointSet, Policy, Service, Span},
};

/// The tables, as the decision reads them. Every method is one lookup, and gives a copy that is whole:
/// an implementation that can meet a reused element checks the fingerprint and looks again.
pub trait Tables {
    /// FRONTENDS, by way of FRONTEND_LINES.
    fn frontend(&self, key: &FrontendKey) -> Option<Found>;
    /// An endpoint of this Service is about to be chosen. Whoever waits for memory may begin to load what that touches.
    fn expect(&self, _: &Found) {}
    /// ADDRESSES; no bits for an address that is not there.
    fn address(&self, address: &Address) -> AddressBits;
    /// One span of an element of SERVICES.
    fn span(&self, service: u32, set: EndpointSet) -> Option<Span>;
    /// The policy word of an element of SERVICES.
    fn policy(&self, service: u32) -> Option<Policy>;
    /// ENDPOINTS.
    fn endpoint(&self, slot: u32) -> Option<Endpoint>;
    /// ENDPOINT_STATE.
    fn endpoint_state(&self, id: u32) -> Option<EndpointState>;
    /// AFFINITY.
    fn affinity(&self, key: &AffinityKey) -> Option<Affinity>;
    /// Writes AFFINITY: a new choice.
    fn remember(&self, key: &AffinityKey, affinity: &Affinity);
    /// Writes AFFINITY: the client came again at `now`, in nanoseconds since boot.
    fn refresh(&self, key: &AffinityKey, now: u64);
    /// SOURCE_RANGES: whether a range of this set of the Service's holds the address.
    fn admits(&self, service: u32, set: u16, source: &Address) -> bool;
    /// CLIENTS, by the cookie of a network namespace.
    fn client(&self, cookie: u64) -> Option<ClientAddresses>;
}

/// The client. Methods, not fields: most decisions need neither answer.
pub trait Client {
    /// The client's identity for affinity; see [`AffinityKey::client`].
    fn identity(&self) -> Address;
    /// Whether the client is in the node's own network namespace, where loopback is the node's (PO-21).
    fn is_node(&self) -> bool;
    /// Where the client is.
    fn scope(&self) -> Scope;
    /// The address that a packet from the client to `destination` would have as its source, if it is known.
    fn source(&self, tables: &impl Tables, destination: &Address) -> Option<Address>;
}

/// A client of which nothing is known, for [`resolve`]: any frontend may be its.
#[derive(Clone, Copy, Debug)]
pub struct Anybody;

impl Client for Anybody {
    fn identity(&self) -> Address {
        Address::ANY_V6
    }

    fn is_node(&self) -> bool {
        true
    }

    fn scope(&self) -> Scope {
        Scope::Inside
    }

    fn source(&self, _: &impl Tables, _: &Address) -> Option<Address> {
        None
    }
}

/// What [`select()`] decides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// Nothing of ours: leave the packet or socket alone.
    NotService,
    /// Refuse; `service` is the index of the Service, where there is one.
    Refuse {
        /// Index into SERVICES.
        service: Option<u32>,
        /// Why.
        reason: Reason,
    },
    /// Send it to this endpoint.
    Forward(Forward),
}

/// A chosen endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Forward {
    /// The endpoint; its `service` is the index into SERVICES.
    pub endpoint: Endpoint,
    /// Its slot of ENDPOINTS, which is not written before the program that asked has ended.
    pub slot: u32,
    /// Whether the endpoint was remembered (affinity) rather than drawn.
    pub remembered: bool,
}

/// The first half of the decision: is there a Service at this address?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resolution {
    /// Nothing of ours.
    NotService,
    /// A ClusterIP without such a port.
    UnknownPort,
    /// A Service, through this frontend.
    Service(Found),
}

/// Decides for a client that wants to reach `destination`.
///
/// `clock` gives nanoseconds since boot, `random` thirty-two random bits; each is called at most once,
/// and only when the answer depends on it.
#[inline(always)]
pub fn select(
    tables: &impl Tables,
    destination: &FrontendKey,
    client: &impl Client,
    clock: impl FnOnce() -> u64,
    random: impl FnOnce() -> u32,
) -> Decision {
    match resolve(tables, destination, client) {
        Resolution::NotService => Decision::NotService,
        Resolution::UnknownPort => Decision::Refuse { service: None, reason: Reason::UnknownPort },
        Resolution::Service(frontend) => {
            choose(tables, &destination.address, frontend, client, clock, random)
        }
    }
}

/// The first half: finds the Service at `destination`. One lookup when there is one, two for everything else, a third
/// only for the node's own addresses.
#[inline(always)]
pub fn resolve(tables: &impl Tables, destination: &FrontendKey, client: &impl Client) -> Resolution {
    if let Some(frontend) = tables.frontend(destination) {
        return Resolution::Service(frontend);
    }
    let bits = tables.address(&destination.address);
    if bits.has(AddressBits::NODE)
        || (destination.address.is_loopback()
            && client.is_node()
            && answers_at_loopback(tables, &destination.address))
    {
        let key = FrontendKey::node_port(&destination.address, destination.port, destination.protocol);
        return match tables.frontend(&key) {
            Some(frontend) => Resolution::Service(frontend),
            None => Resolution::NotService,
        };
    }
    if bits.has(AddressBits::CLUSTER_IP) { Resolution::UnknownPort } else { Resolution::NotService }
}

/// PO-11: whether NodePorts are answered at a loopback address of the node. These are too many for the table; one
/// entry speaks for all of a family. A call of its own, as [`admit`] is.
#[inline(never)]
fn answers_at_loopback(tables: &impl Tables, address: &Address) -> bool {
    !tables.address(&address.any_of_family()).has(AddressBits::SILENT_LOOPBACK)
}

/// The second half: chooses an endpoint of the Service behind `frontend`, the client's last one under ClientIP affinity
/// while it is usable, else one drawn uniformly. It only forwards or refuses; but a `Result` of these gave the verifier 4 % more
/// to walk in sendmsg6.
#[inline(always)]
pub fn choose(
    tables: &impl Tables,
    destination: &Address,
    frontend: Found,
    client: &impl Client,
    clock: impl FnOnce() -> u64,
    random: impl FnOnce() -> u32,
) -> Decision {
    let service = frontend.service;
    let refuse = |reason| Decision::Refuse { service: Some(service), reason };
    tables.expect(&frontend);
    let set = Service::set(frontend.kind(), client.scope());
    let Some(span) = tables.span(service, set) else {
        return refuse(Reason::Inconsistent);
    };
    let Some(Policy { affinity_seconds, generation, source_set }) = tables.policy(service) else {
        return refuse(Reason::Inconsistent);
    };
    if frontend.kind() == FrontendKind::LoadBalancer as u8
        && source_set != 0
        && let Err(reason) = admit(tables, service, source_set, destination, client)
    {
        return refuse(reason);
    }
    if span.count == 0 {
        return refuse(Reason::from_number(span.base));
    }
    let draw = || span.base.wrapping_add(scale(random(), span.count));
    let (mut slot, mut is_remembered) = (None, false);
    let mut key = AffinityKey { client: Address::ANY_V6, service, generation, padding: 0 };
    let mut now = 0;
    if affinity_seconds != 0 {
        key.client = client.identity();
        now = clock();
        if let Some(affinity) = tables.affinity(&key)
            && now.saturating_sub(affinity.last_used)
                < u64::from(affinity_seconds).saturating_mul(1_000_000_000)
        {
            slot = remembered(tables, &affinity, service, set);
            is_remembered = slot.is_some();
        }
    }
    let slot = slot.unwrap_or_else(draw);
    let Some(endpoint) = tables.endpoint(slot) else {
        return refuse(Reason::Inconsistent);
    };
    if is_remembered {
        tables.refresh(&key, now);
    } else if affinity_seconds != 0 {
        let affinity = Affinity {
            endpoint: endpoint.id,
            generation: endpoint.generation,
            fingerprint: key.fingerprint(),
            last_used: now,
        };
        tables.remember(&key, &affinity);
    }
    Decision::Forward(Forward { endpoint, slot, remembered: is_remembered })
}

/// ST-1: whether the client may use a LoadBalancer IP of a Service with source ranges.
///
/// A separate function: it is rarely called, and the verifier drops its state when it returns.
#[inline(never)]
fn admit(
    tables: &impl Tables,
    service: u32,
    set: u16,
    destination: &Address,
    client: &impl Client,
) -> Result<(), Reason> {
    let source = client.source(tables, destination).ok_or(Reason::ClientUnknown)?;
    if tables.admits(service, set, &source) { Ok(()) } else { Err(Reason::SourceNotInRanges) }
}

/// The slot of an affinity record's endpoint, if new connections of `set` may still go there.
#[inline(always)]
fn remembered(tables: &impl Tables, affinity: &Affinity, service: u32, set: EndpointSet) -> Option<u32> {
    let state = tables.endpoint_state(affinity.endpoint)?;
    if state.generation != affinity.generation || state.bits & EndpointState::usable(set) == 0 {
        return None;
    }
    let endpoint = tables.endpoint(state.slot)?;
    (endpoint.id == affinity.endpoint && endpoint.service == service).then_some(state.slot)
}

/// Whether an endpoint that was given out earlier still serves, so that a UDP socket stays with it.
#[inline(always)]
pub fn is_serving(tables: &impl Tables, endpoint: u32, generation: u16) -> bool {
    tables
        .endpoint_state(endpoint)
        .is_some_and(|state| state.generation == generation && state.bits & EndpointState::SERVING != 0)
}

/// Maps thirty-two random bits to `0..count` without a division: the bias is below `count` / 2^32.
#[inline(always)]
pub const fn scale(random: u32, count: u32) -> u32 {
    ((random as u64 * count as u64) >> 32) as u32
}
