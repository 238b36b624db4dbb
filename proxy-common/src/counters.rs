//! COUNTERS: what happened to each Service's clients, and REFUSALS: the same by reason.

use bytemuck::{Pod, Zeroable};

/// An element of COUNTERS. A Service's figure is the sum over [`SHARDS`] elements.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct ServiceCounters {
    /// Connections, and UDP flows of a socket, that were given an endpoint.
    pub connections: u64,
    /// Connections and datagrams that were refused.
    pub refusals: u64,
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
