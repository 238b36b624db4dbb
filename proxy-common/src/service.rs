//! SERVICES: one record for each Service port and family, shared by all its frontends.

use bytemuck::{Pod, Zeroable, must_cast};

use crate::{frontend::FrontendKind, reason::Reason, scope::Scope};

/// A run of slots in ENDPOINTS, or the reason why there is none. One aligned 64-bit word: a single store
/// turns a Service from one set of endpoints to another, or into a refusal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct Span {
    /// First slot; with `count` 0, the number of the [`Reason`] for refusing.
    pub base: u32,
    /// How many slots.
    pub count: u32,
}

impl Span {
    /// A span that refuses.
    pub const fn refuse(reason: Reason) -> Self {
        Self { base: reason as u32, count: 0 }
    }

    /// Whether `slot` is within the span.
    pub const fn contains(&self, slot: u32) -> bool {
        slot.wrapping_sub(self.base) < self.count
    }
}

/// A record of SERVICES. The spans change while programs read them; everything else is written before
/// the first frontend leads here.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct Service {
    /// Endpoints for clients of the ClusterIP (internalTrafficPolicy).
    pub cluster: Span,
    /// Endpoints for pods and processes of this node that use an external frontend.
    pub inside: Span,
    /// Endpoints for clients outside of this node that use an external frontend (externalTrafficPolicy).
    pub outside: Span,
    /// Seconds of ClientIP affinity; 0 for none.
    pub affinity_seconds: u32,
    /// Counts the uses of this index, so that whatever remembers the index can tell that it was reused.
    pub generation: u16,
    /// The set in SOURCE_RANGES that says who may use the Service's LoadBalancer IPs; 0 for everyone (ST-1).
    pub source_set: u16,
}

/// The fourth word of [`Service`], read at once: what decides besides the spans.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policy {
    /// [`Service::affinity_seconds`].
    pub affinity_seconds: u32,
    /// [`Service::generation`].
    pub generation: u16,
    /// [`Service::source_set`].
    pub source_set: u16,
}

impl Policy {
    /// From the word, whose bytes are counted from the lowest.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        // In words: each halving is a shift for kernel code, where an array would be taken apart in memory.
        let [affinity_seconds, rest]: [u32; 2] = must_cast(word);
        let [generation, source_set]: [u16; 2] = must_cast(rest);
        Self { affinity_seconds, generation, source_set }
    }
}

impl Service {
    /// What decides besides the spans.
    pub const fn policy(&self) -> Policy {
        let Self { cluster: _, inside: _, outside: _, affinity_seconds, generation, source_set } = *self;
        Policy { affinity_seconds, generation, source_set }
    }

    /// Which of the spans serves a client of a frontend of `kind` that comes from `scope`.
    #[inline(always)]
    pub const fn set(kind: u8, scope: Scope) -> EndpointSet {
        if kind == FrontendKind::ClusterIp as u8 {
            EndpointSet::Cluster
        } else {
            match scope {
                Scope::Inside => EndpointSet::Inside,
                Scope::Outside => EndpointSet::Outside,
            }
        }
    }
}

/// The three endpoint sets of a Service; the value is the index of the span in [`Service`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum EndpointSet {
    /// [`Service::cluster`].
    Cluster = 0,
    /// [`Service::inside`].
    Inside = 1,
    /// [`Service::outside`].
    Outside = 2,
}

const _: () = assert!(size_of::<Span>() == 8 && align_of::<Span>() == 8);
const _: () = assert!(size_of::<Service>() == 32);
