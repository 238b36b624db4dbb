//! COUNTERS and REFUSALS: what happened to each Service's clients, and TOTALS: what happened on the whole node.

use bytemuck::{Pod, Zeroable};

use crate::reason::Reason;

/// An element of COUNTERS. A Service's figure is the sum over [`SHARDS`] elements.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct ServiceCounters {
    /// Connections, and UDP flows of a socket, that were given an endpoint at random.
    pub drawn: u64,
    /// Those that were given the endpoint that their client had before (ClientIP affinity).
    pub remembered: u64,
}

impl ServiceCounters {
    /// All that were given an endpoint.
    pub const fn connections(&self) -> u64 {
        self.drawn + self.remembered
    }
}

/// An element of REFUSALS: connections and datagrams of a Service that were refused. Not sharded: who is refused
/// has time.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct ServiceRefusals {
    /// By [`ServiceRefusals::slot`].
    pub by_reason: [u64; ServiceRefusals::LEN],
}

impl ServiceRefusals {
    /// How many reasons there are: a power of two.
    pub const LEN: usize = 8;

    /// The element for a reason, its number modulo the length; nothing for one that is no Service's.
    #[inline(always)]
    pub const fn slot(reason: Reason) -> Option<usize> {
        match reason {
            Reason::FlowTableFull => None,
            reason => Some(reason as usize % Self::LEN),
        }
    }

    /// How many were refused for this reason.
    pub const fn of(&self, reason: Reason) -> u64 {
        match Self::slot(reason) {
            Some(slot) => self.by_reason[slot],
            None => 0,
        }
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

/// Indices of TOTALS. Below [`Reason::LIMIT`] they are reasons, from there on what follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Total {
    /// A socket talked to more Services than it can remember by itself; its oldest moved to OVERFLOW.
    OverflowedSocket = Reason::LIMIT,
    /// The kernel had no memory for a socket's record: its peer name will be the endpoint's.
    UnrecordedSocket,
    /// NAMESPACES had no room: until the agent has made some, it looks into every namespace.
    UntrackedNamespace,
    /// A connected UDP socket was closed because its endpoint is gone (ST-5). Counted by the agent.
    ClosedSocket,
    /// A client's packets to two frontends would have become the same packets to one endpoint; refused.
    CollidingFlow,
    /// A fragment of a datagram whose first fragment did not come by in time; left to the node's own stack.
    LateFragment,
    /// A refusal that was not answered, because a thousand were within the second.
    UnansweredRefusal,
    /// A packet that was to leave masqueraded, and whose connection has no source any more; dropped.
    WithoutSource,
    /// A packet on the fast path to whose destination no route leads any more; dropped.
    WithoutRoute,
}

impl Total {
    /// Length of TOTALS.
    pub const LIMIT: u32 = 32;
    /// All that are not reasons.
    pub const ALL: [Self; 9] = [
        Self::OverflowedSocket,
        Self::UnrecordedSocket,
        Self::UntrackedNamespace,
        Self::ClosedSocket,
        Self::CollidingFlow,
        Self::LateFragment,
        Self::UnansweredRefusal,
        Self::WithoutSource,
        Self::WithoutRoute,
    ];

    /// The name that metrics and commands use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OverflowedSocket => "overflowed-sockets",
            Self::UnrecordedSocket => "unrecorded-sockets",
            Self::UntrackedNamespace => "untracked-namespaces",
            Self::ClosedSocket => "closed-sockets",
            Self::CollidingFlow => "colliding-flows",
            Self::LateFragment => "late-fragments",
            Self::UnansweredRefusal => "unanswered-refusals",
            Self::WithoutSource => "packets-without-source",
            Self::WithoutRoute => "packets-without-route",
        }
    }
}

const _: () = assert!(size_of::<ServiceCounters>() == 16);
const _: () = assert!(size_of::<ServiceRefusals>() == 64);
const _: () = {
    let mut number = 0;
    while number < Reason::ALL.len() {
        // Numbers follow each other from 1, so no two of the first eight share an element.
        assert!(Reason::ALL[number] as usize == number + 1);
        assert!(number < ServiceRefusals::LEN || ServiceRefusals::slot(Reason::ALL[number]).is_none());
        number += 1;
    }
};

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
