//! COUNTERS and REFUSALS: what happened to each Service's clients. What happened on the whole node, TOTALS, is indexed by
//! [`Reason`] and [`NodeEvent`](crate::node_event::NodeEvent).

use bytemuck::{Pod, Zeroable};

use crate::reason::Reason;

/// An element of COUNTERS. A Service's figure is the sum over [`SHARDS`] elements.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct ServiceCounters {
    /// Connections, and UDP flows of a socket, that got a random endpoint.
    pub drawn: u64,
    /// Connections that got their client's previous endpoint (ClientIP affinity).
    pub remembered: u64,
}

impl ServiceCounters {
    /// All connections that got an endpoint.
    pub const fn connections(&self) -> u64 {
        self.drawn + self.remembered
    }
}

/// An element of REFUSALS: what a Service's clients did not get. Not sharded: it is rare, or the client has time.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct ServiceRefusals {
    /// Translations of datagrams that OVERFLOW had no room for: answers to them carry the endpoint's address.
    pub unrecorded: u64,
    /// Refused connections and datagrams, by the reason's number less one.
    pub by_reason: [u64; ServiceRefusals::LEN - 1],
}

impl ServiceRefusals {
    /// Words of an element: numbers of reasons begin with 1.
    pub const LEN: usize = Reason::LIMIT as usize;

    /// Refusals for this reason; 0 for a reason that counts for the node alone.
    pub const fn of(&self, reason: Reason) -> u64 {
        if reason.is_of_service() { self.by_reason[reason as usize - 1] } else { 0 }
    }

    /// How many were refused.
    pub fn total(&self) -> u64 {
        self.by_reason.iter().sum()
    }
}

/// How many elements of COUNTERS a Service has, so that processors do not fight over one cache line.
/// Few and fixed, not one for each possible processor: memory must not grow with the machine.
pub const SHARDS: u32 = 4;

/// The element of COUNTERS that `cpu` adds to for `service`, when the table has room for `services`.
#[inline(always)]
pub const fn shard(cpu: u32, service: u32, services: u32) -> u32 {
    (cpu % SHARDS).wrapping_mul(services).wrapping_add(service)
}

const _: () = assert!(size_of::<ServiceCounters>() == 16);
const _: () = assert!(size_of::<ServiceRefusals>() == 128);
// The kernel programs index it by masking a reason's number.
const _: () = assert!(ServiceRefusals::LEN == 16);

/// The one element of REFUSED_RATE and HELD_RATE: how often something was done in the second that passes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct Rate {
    /// The second, since boot.
    pub second: u64,
    /// How often in it.
    pub done: u64,
}

const _: () = assert!(size_of::<Rate>() == 16);
