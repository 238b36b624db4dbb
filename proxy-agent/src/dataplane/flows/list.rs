//! Flows as people know them, put together from their elements.
//!
//! The table changes under the reader, so a flow may be told with half of what it is.

use std::net::{IpAddr, SocketAddr};

use proxy_common::{Address, Flow, FlowEndpoint, FlowKey, Life, PacketHook, Port, Protocol, Tables as _};
use serde::Serialize;

use crate::dataplane::Tables;

/// How far a flow is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FlowState {
    /// No answer has come by.
    Unanswered,
    /// Packets go both ways.
    Established,
    /// One side has closed the connection.
    HalfClosed,
    /// Both have, or one has reset it.
    Closed,
}

impl FlowState {
    fn of(forward: Life, reply: Option<Life>) -> Self {
        let reply = reply.unwrap_or_default();
        if forward.ended(reply) {
            Self::Closed
        } else if !reply.has(Life::SEEN) {
            Self::Unanswered
        } else if (forward.bits | reply.bits) & Life::FIN != 0 {
            Self::HalfClosed
        } else {
            Self::Established
        }
    }

    /// The name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unanswered => "unanswered",
            Self::Established => "established",
            Self::HalfClosed => "half-closed",
            Self::Closed => "closed",
        }
    }
}

/// One flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ListedFlow {
    /// Nothing for a number that is no protocol of ours.
    pub protocol: Option<Protocol>,
    /// Where it comes from.
    pub client: SocketAddr,
    /// What the client has asked for.
    pub frontend: SocketAddr,
    /// Where it goes.
    pub endpoint: SocketAddr,
    /// What the endpoint takes for the client, if that is not its own address.
    pub source: Option<SocketAddr>,
    /// Index of its Service, if the endpoint is still one of it.
    pub service: Option<u32>,
    /// How far it is.
    pub state: FlowState,
    /// Whether nothing can push it out.
    pub confirmed: bool,
    /// When the last packet came by in either direction, in seconds since boot.
    pub used: u32,
}

/// Every flow.
pub fn list(tables: &Tables) -> Vec<ListedFlow> {
    let mut found = Vec::new();
    tables.flows.visit(|key, flow| {
        if key.is_ingress() && flow.is_forward() {
            found.push(listed(tables, key, flow));
        }
    });
    found
}

fn listed(tables: &Tables, key: &FlowKey, flow: &Flow) -> ListedFlow {
    let find = |key: &FlowKey| tables.flows.get(key);
    let client = (key.source, key.source_port);
    let reply = find(&flow.peer_key(key)).filter(|peer| flow.is_peer(key, peer)).map(|peer| peer.life);
    let leaving = FlowKey::new(PacketHook::Egress, key.protocol, client, (flow.address, flow.port));
    let source = find(&leaving).filter(|source| source.is_forward() && !source.is_pending());
    ListedFlow {
        protocol: Protocol::from_number(key.protocol),
        client: socket(client),
        frontend: socket((key.destination, key.destination_port)),
        endpoint: socket((flow.address, flow.port)),
        source: source.map(|source| socket((source.address, source.port))),
        service: owner(tables, flow.endpoint()),
        state: FlowState::of(flow.life, reply),
        confirmed: flow.life.has(Life::CONFIRMED),
        used: flow.life.seconds.max(reply.unwrap_or_default().seconds),
    }
}

/// The Service of an endpoint, as long as neither has gone: indexes and ids get other owners.
fn owner(tables: &Tables, endpoint: FlowEndpoint) -> Option<u32> {
    let FlowEndpoint { id, generation, service } = endpoint;
    let state =
        tables.endpoint_state(id).filter(|state| state.bits != 0 && state.generation == generation)?;
    let found = tables.endpoint(state.slot)?;
    (found.id == id && found.service == service).then_some(service)
}

fn socket((address, port): (Address, Port)) -> SocketAddr {
    SocketAddr::new(IpAddr::from(address), port.get())
}
