//! What a node counts besides connections and refusals: one table for the kernel programs, the metrics and the
//! commands. Refusals are [`Reason`]s.

use crate::reason::Reason;

/// The subject of an event: a socket of this node, or a packet of a north-south connection.
macro_rules! is_of_packet {
    (socket) => {
        false
    };
    (packet) => {
        true
    };
}

macro_rules! events {
    ($($(#[doc = $doc:literal])+ $number:literal $event:ident $name:literal $subject:ident;)+) => {
        /// An event, by its index in TOTALS: behind those of the [`Reason`]s.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u32)]
        pub enum NodeEvent {
            $($(#[doc = $doc])+ $event = $number,)+
        }

        impl NodeEvent {
            /// How many there are.
            const COUNT: usize = [$($number),+].len();

            /// Every event, in the order of their indices.
            pub const ALL: [Self; Self::COUNT] = [$(Self::$event),+];

            /// The name that metrics and commands use.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$event => $name,)+
                }
            }

            /// Whether it happens to a packet; else it does to a socket.
            pub const fn is_of_packet(self) -> bool {
                match self {
                    $(Self::$event => is_of_packet!($subject),)+
                }
            }
        }
    };
}

events! {
    /// A socket talked to more Services than it can remember by itself; its oldest moved to OVERFLOW.
    16 OverflowedSocket "overflowed-sockets" socket;
    /// The kernel had no memory for a socket's record; OVERFLOW holds it instead.
    17 UnrecordedSocket "unrecorded-sockets" socket;
    /// NAMESPACES was full: until the agent has made room, it searches every namespace.
    18 UntrackedNamespace "untracked-namespaces" socket;
    /// A connected UDP socket was closed because its endpoint is gone and the agent could not connect it again (ST-5).
    /// Counted by the agent.
    19 ClosedSocket "closed-sockets" socket;
    /// A fragment of a datagram whose first fragment did not arrive in time; left to the node's own stack.
    20 LateFragment "late-fragments" packet;
    /// A refusal left unanswered by the rate limit of a thousand per second.
    21 UnansweredRefusal "unanswered-refusals" packet;
    /// A packet to masquerade whose connection no longer has a source; dropped.
    22 WithoutSource "packets-without-source" packet;
    /// A packet on the fast path to a destination without a route; dropped.
    23 WithoutRoute "packets-without-route" packet;
    /// A UDP socket was connected to a Service address without an endpoint; it gets one as soon as there is one.
    24 UnservedSocket "unserved-sockets" socket;
    /// A connected UDP socket was connected to another endpoint of its Service, because its own is gone (ST-5). Counted
    /// by the agent.
    25 MovedSocket "moved-sockets" socket;
    /// A socket asked for a Service in a network namespace that the socket programs pass by (BYPASSED), or it sent a datagram
    /// there: its packets are translated at the pod's device.
    26 PassedSocket "passed-sockets" socket;
    /// A socket asked for a Service in a network namespace that the agent has not looked at yet: it does so now.
    27 UnknownNamespace "unknown-namespaces" socket;
    /// An endpoint reset a connection before it was confirmed: no process listens on its port.
    28 ResetByEndpoint "reset-by-endpoint" packet;
    /// A refusal that LAST_REFUSALS did not take up: more than a hundred clients or frontends a second were new to it.
    29 UnrecordedRefusal "unrecorded-refusals" packet;
}

impl NodeEvent {
    /// One more than the highest index: the length of TOTALS.
    pub const LIMIT: u32 = 32;
}

const _: () = {
    let mut index = 0;
    while index < NodeEvent::COUNT {
        let number = NodeEvent::ALL[index] as usize;
        assert!(number == Reason::LIMIT as usize + index && number < NodeEvent::LIMIT as usize);
        index += 1;
    }
};
