//! Why a connection is refused: one table for the kernel programs, the metrics and the commands.
//!
//! A row says everything about a reason. Its number is part of the tables' contract: a span without endpoints holds it,
//! REFUSALS and TOTALS are indexed by it, and it is never reused. New reasons go at the end.

/// What a north-south client sees of a refusal. A process of the node always gets the error of its call.
macro_rules! is_answered {
    // TCP gets a reset, UDP an ICMP error "port unreachable".
    (reject) => {
        true
    };
    // No answer: the client's packets are dropped.
    (drop) => {
        false
    };
}

/// Whether a refusal counts for the Service as well; all count for the node.
macro_rules! is_of_service {
    (service) => {
        true
    };
    (node) => {
        false
    };
}

macro_rules! reasons {
    ($($number:literal $reason:ident $name:literal $answer:ident $counted:ident [$($row:literal)*] $explanation:literal;)+) => {
        /// The reason for a refusal.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
        #[repr(u32)]
        pub enum Reason {
            $(#[doc = concat!("`", $name, "`: ", $explanation, ".")] $reason = $number,)+
        }

        impl Reason {
            /// How many there are.
            const COUNT: usize = [$($number),+].len();

            /// Every reason, in the order of their numbers.
            pub const ALL: [Self; Self::COUNT] = [$(Self::$reason),+];

            /// The name that metrics and commands use.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$reason => $name,)+
                }
            }

            /// The cause in one sentence, for people.
            pub const fn explanation(self) -> &'static str {
                match self {
                    $(Self::$reason => $explanation,)+
                }
            }

            /// The rows of docs/kube-proxy-parity.md that require it.
            pub const fn rows(self) -> &'static [&'static str] {
                match self {
                    $(Self::$reason => &[$($row),*],)+
                }
            }

            /// Whether a north-south client gets an answer (a TCP reset, or ICMP "port unreachable"); otherwise its
            /// packets are dropped. A process of the node always gets the error of its call.
            #[inline(always)]
            pub const fn is_answered(self) -> bool {
                match self {
                    $(Self::$reason => is_answered!($answer),)+
                }
            }

            /// Whether it counts for the Service, too; otherwise for the node alone.
            #[inline(always)]
            pub const fn is_of_service(self) -> bool {
                match self {
                    $(Self::$reason => is_of_service!($counted),)+
                }
            }

            /// Whether a UDP socket may be connected to the frontend all the same: what it sends before there is an
            /// endpoint is lost, and answered as packets are. A client that must not use the Service gets no socket.
            #[inline(always)]
            pub const fn lets_connect(self) -> bool {
                matches!(self, Self::NoEndpoints | Self::NoLocalEndpoints | Self::UnknownPort | Self::Inconsistent)
            }

            /// From the number in a refusing span.
            #[inline(always)]
            pub const fn from_number(number: u32) -> Self {
                match number {
                    $($number => Self::$reason,)+
                    _ => Self::Inconsistent,
                }
            }
        }
    };
}

reasons! {
    1 NoEndpoints "no-endpoints" reject service ["PO-1"]
        "the Service has no ready endpoint, and none that is terminating but still serving";
    // A node without a local endpoint does not answer (PO-3).
    2 NoLocalEndpoints "no-local-endpoints" drop service ["PO-2" "PO-19"]
        "the Service's traffic policy is Local and none of its usable endpoints is on this node";
    3 UnknownPort "unknown-port" reject node ["PO-13"]
        "the address is a ClusterIP, but no Service port has this number and protocol";
    // For longer than an update lasts.
    4 Inconsistent "inconsistent" drop service []
        "the tables disagree with each other; this is a bug, please report it";
    // Neither does it answer clients that may not use the Service.
    5 SourceNotInRanges "source-not-in-ranges" drop service ["ST-1"]
        "the client's address is in none of the Service's spec.loadBalancerSourceRanges";
    6 ClientUnknown "client-unknown" drop service ["ST-8"]
        "the Service has spec.loadBalancerSourceRanges, and the agent has not found the client's network \
         namespace or its address there; it searches again after such a refusal";
    7 SourcePortsExhausted "source-ports-exhausted" drop service []
        "live flows to the same endpoint use every port of --source-port-range; widen the range";
    8 NoSourceAddress "no-source-address" drop service []
        "the device that leads to the endpoint has no address of the flow's family to masquerade with";
    // Not the Service's doing.
    9 FlowTableFull "flow-table-full" reject node []
        "FLOWS is full of confirmed north-south flows; start the agent again with a larger --max-flows";
    // 10 was `colliding-flows`.
    11 OwnAddress "own-address" reject service []
        "the endpoint chosen is the client socket's own address and port: it would be connected to itself";
    12 BoundToLoopback "bound-to-loopback" reject service []
        "the client is bound to a loopback address or device, from which no packet reaches the NodePort's endpoint";
}

impl Reason {
    /// One more than the highest number: the length of tables that are indexed by reason.
    pub const LIMIT: u32 = 16;
}

const _: () = {
    let mut index = 0;
    let mut last = 0;
    while index < Reason::COUNT {
        assert!(Reason::ALL[index] as u32 > last, "0 stays free, and numbers grow");
        last = Reason::ALL[index] as u32;
        index += 1;
    }
    assert!(last < Reason::LIMIT);
};

impl core::fmt::Display for Reason {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(self.name())
    }
}
