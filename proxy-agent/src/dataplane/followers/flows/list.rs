//! Connection records as people read them.
//!
//! The map changes while it is read; the reader skips incomplete records.

use std::net::{IpAddr, SocketAddr};

use proxy_common::{
    Address, Port, Protocol, Record, Tables as _,
    connection::{Ends, Origin, Seen},
};
use serde::Serialize;

use crate::dataplane::Tables;

/// The state of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FlowState {
    /// No answer has passed.
    Unanswered,
    /// Packets go both ways.
    Established,
    /// One side has closed the connection.
    HalfClosed,
    /// Both have, or one has reset it.
    Closed,
}

impl FlowState {
    fn of(seen: Seen) -> Self {
        if seen.ended() {
            Self::Closed
        } else if !seen.answered() {
            Self::Unanswered
        } else if (seen.client | seen.endpoint) & Seen::FIN != 0 {
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

/// One connection, or UDP flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ListedFlow {
    /// `None` for a protocol that we do not serve.
    pub protocol: Option<Protocol>,
    /// The client's address and port.
    pub client: SocketAddr,
    /// The frontend that the client connected to.
    pub frontend: SocketAddr,
    /// Where it goes.
    pub endpoint: SocketAddr,
    /// The address and port that the endpoint sees, if not the client's own.
    pub source: Option<SocketAddr>,
    /// Index of its Service, if the endpoint is still one of it.
    pub service: Option<u32>,
    /// Index of the device that the client's packets arrive at.
    pub device: u32,
    /// Its state.
    pub state: FlowState,
    /// Whether the endpoint has ever answered.
    pub answered: bool,
    /// Whether it is on the fast path.
    pub fast: bool,
    /// Whether it is confirmed, so that nothing can evict it.
    pub confirmed: bool,
    /// When it began, in seconds since boot.
    pub began: u32,
    /// When the last packet passed in either direction, in seconds since boot.
    pub used: u32,
}

/// Every connection.
pub fn list(tables: &Tables) -> Vec<ListedFlow> {
    let mut listed = Vec::new();
    tables.flows.visit(|found| {
        let Record { ends, origin } = &found.record;
        listed.push(ListedFlow {
            protocol: Protocol::from_number(ends.protocol),
            client: socket(ends.from()),
            frontend: socket(ends.asked()),
            endpoint: socket(ends.to()),
            source: ends.has_source_port().then(|| socket(origin.masquerade())),
            service: owner(tables, origin),
            device: origin.device,
            state: FlowState::of(ends.seen),
            answered: ends.seen.answered(),
            fast: is_fast(ends),
            confirmed: found.kept,
            began: origin.began,
            used: origin.seconds,
        });
    });
    listed
}

/// UDP flows take the fast path once a datagram has left through the stack.
fn is_fast(ends: &Ends) -> bool {
    let Ends { seen, protocol, .. } = ends;
    if *protocol == Protocol::Tcp as u8 {
        seen.route == Seen::FAST
    } else {
        ends.is_masqueraded()
            && !ends.is_local()
            && !ends.is_remapped()
            && seen.client & seen.endpoint & Seen::LEFT != 0
    }
}

/// The Service of an endpoint, unless either is gone and its index or id reused.
fn owner(tables: &Tables, origin: &Origin) -> Option<u32> {
    let Origin { endpoint, generation, service, .. } = *origin;
    let state =
        tables.endpoint_state(endpoint).filter(|state| state.bits != 0 && state.generation == generation)?;
    let found = tables.endpoint(state.slot)?;
    (found.id == endpoint && found.service == service).then_some(service)
}

fn socket((address, port): (Address, Port)) -> SocketAddr {
    SocketAddr::new(IpAddr::from(address), port.get())
}
