//! The contract between Sidestep's kernel programs and its agent.
//!
//! Two things live here, and nothing else:
//! - the **contract**: keys and values of every table, their sizes asserted, and the reasons of refusals;
//! - the **algorithms** that must give the same answer wherever they run, above all [`select()`]: which endpoint does
//!   this client get?
//!
//! Compiled into the kernel programs, the agent and the host tests alike; so the crate does not allocate, has no
//! clock and no randomness of its own, and leaves no bounds check that could panic in kernel code.
#![no_std]
#![deny(unsafe_code)]

pub mod address;
pub mod affinity;
pub mod clients;
pub mod connection;
pub mod counters;
pub mod endpoint;
pub mod event;
pub mod fragments;
pub mod frontend;
pub mod frontend_lines;
pub mod held_socket;
pub mod interface;
pub mod last_refusals;
pub mod names;
pub mod node_event;
pub mod packet;
pub mod passed_by;
pub mod peer;
pub mod reason;
pub mod scope;
pub mod select;
pub mod service;
pub mod source_ranges;
pub mod translation;
#[cfg(feature = "user")]
#[expect(unsafe_code, reason = "aya::Pod is an unsafe marker trait")]
mod user;

pub use address::{Address, AddressBits, AddressEntry, Port, Protocol};
pub use affinity::{Affinity, AffinityKey};
pub use clients::ClientAddresses;
pub use connection::{FlowLock, FlowTags, FlowUses, PortOwners, Record, Tuple};
pub use counters::{Rate, ServiceCounters, ServiceRefusals};
pub use endpoint::{Endpoint, EndpointState};
pub use event::{Event, Happening, Listener};
pub use fragments::{FragmentKey, FragmentPorts};
pub use frontend::{Found, Frontend, FrontendKey, FrontendKind};
pub use frontend_lines::{FrontendLine, FrontendPlace};
pub use held_socket::HeldSocket;
pub use interface::Interface;
pub use last_refusals::{LastRefusal, RefusedPair};
pub use names::ServiceName;
pub use node_event::NodeEvent;
pub use packet::{Network, PacketHook};
pub use passed_by::{PassedBy, SocketWish};
pub use peer::Peer;
pub use reason::Reason;
pub use scope::Scope;
pub use select::{Client, Decision, Forward, Tables, select};
pub use service::{Policy, Service, Span};
pub use source_ranges::{SourceRange, SourceRangeKey};
pub use translation::{Aged, Asker, Datagrams, OverflowKey, Overflowed, SharedPorts, Translation};

/// Version of the tables, and the name of the directory that they are pinned in (`…/v1`).
///
/// Layouts may change within a version: an agent converts what it finds, by the names of fields
/// (`proxy-agent/src/dataplane/upgrade`). Tables whose elements no conversion could make from the former ones are a new
/// version.
pub const ABI: &str = "v1";
