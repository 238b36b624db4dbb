//! Why a connection was refused: one list for the kernel programs, the metrics and the commands.

/// The reason for a refusal. Numbers are part of the tables' contract and are never reused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(u32)]
pub enum Reason {
    /// The Service has no usable endpoint anywhere (PO-1).
    NoEndpoints = 1,
    /// The traffic policy is Local and no usable endpoint is on this node (PO-2, PO-19).
    NoLocalEndpoints = 2,
    /// The address is a ClusterIP and no Service port is known by this number (PO-13).
    UnknownPort = 3,
    /// The tables disagreed with each other for longer than an update lasts; a bug, please report.
    Inconsistent = 4,
    /// The client's address is in none of the Service's `loadBalancerSourceRanges` (ST-1).
    SourceNotInRanges = 5,
    /// The Service has `loadBalancerSourceRanges`, and the agent does not know the client's address yet (ST-8).
    ClientUnknown = 6,
    /// Every source port that the node may masquerade with is taken by a live flow to the same endpoint.
    SourcePortsExhausted = 7,
    /// The node has no address to masquerade with on the device that leads to the endpoint.
    NoSourceAddress = 8,
    /// All slots of FLOWS that a new flow could have are those of confirmed flows. Counted on the node, not for the Service,
    /// whose doing it is not.
    FlowTableFull = 9,
}

impl Reason {
    /// Every reason, in the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::NoEndpoints,
        Self::NoLocalEndpoints,
        Self::UnknownPort,
        Self::Inconsistent,
        Self::SourceNotInRanges,
        Self::ClientUnknown,
        Self::SourcePortsExhausted,
        Self::NoSourceAddress,
        Self::FlowTableFull,
    ];

    /// One more than the highest number: the length of tables that are indexed by reason.
    pub const LIMIT: u32 = 16;

    /// The name that metrics and commands use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoEndpoints => "no-endpoints",
            Self::NoLocalEndpoints => "no-local-endpoints",
            Self::UnknownPort => "unknown-port",
            Self::Inconsistent => "inconsistent",
            Self::SourceNotInRanges => "source-not-in-ranges",
            Self::ClientUnknown => "client-unknown",
            Self::SourcePortsExhausted => "source-ports-exhausted",
            Self::NoSourceAddress => "no-source-address",
            Self::FlowTableFull => "flow-table-full",
        }
    }

    /// One sentence for the person who was refused.
    pub const fn explanation(self) -> &'static str {
        match self {
            Self::NoEndpoints => {
                "the Service has no ready endpoint, and none that is terminating but still serving"
            }
            Self::NoLocalEndpoints => {
                "the Service's traffic policy is Local and none of its usable endpoints is on this node"
            }
            Self::UnknownPort => {
                "the address is a ClusterIP, but no Service port has this number and protocol"
            }
            Self::Inconsistent => "the tables disagree with each other; this is a bug",
            Self::SourceNotInRanges => {
                "the client's address is in none of the Service's spec.loadBalancerSourceRanges"
            }
            Self::ClientUnknown => {
                "the Service has spec.loadBalancerSourceRanges, and the agent has not found the client's network \
                 namespace or its address there; it looks again after such a refusal"
            }
            Self::SourcePortsExhausted => {
                "every port of --source-port-range is taken by a live flow to the same endpoint; widen the range"
            }
            Self::NoSourceAddress => {
                "the device that leads to the endpoint has no address of the flow's family to masquerade with"
            }
            Self::FlowTableFull => {
                "the node has as many confirmed flows from outside as FLOWS has room for; make room with --max-flows"
            }
        }
    }

    /// From the number in a refusing span.
    #[inline(always)]
    pub const fn from_number(number: u32) -> Self {
        match number {
            1 => Self::NoEndpoints,
            2 => Self::NoLocalEndpoints,
            3 => Self::UnknownPort,
            5 => Self::SourceNotInRanges,
            6 => Self::ClientUnknown,
            7 => Self::SourcePortsExhausted,
            8 => Self::NoSourceAddress,
            9 => Self::FlowTableFull,
            _ => Self::Inconsistent,
        }
    }
}

impl core::fmt::Display for Reason {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(self.name())
    }
}
