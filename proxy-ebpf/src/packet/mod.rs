//! The packet hooks, at TC: what comes from outside of the node, from the same tables as the socket hooks.
//!
//! Ingress rewrites destinations only, egress rewrites sources only: the stack in between, and with it the CNI's
//! connection tracking, policies and routes, sees the client and the endpoint.
//!
//! | file | concept |
//! |---|---|
//! | `ingress` | to a frontend: the endpoint; to a masqueraded source: the client |
//! | `egress` | from an endpoint: the frontend; to an endpoint that is to see the node: a source of the node's |
//! | `headers` | a packet as both hooks see it |
//! | `records` | FLOWS and what belongs to it, as `proxy_common::connection` uses them |
//! | `masquerade` | whether a connection is masqueraded, and with which address |
//! | `outgoing` | what is nobody's request: answers to datagrams that left from a NodePort's number |
//! | `forward` | the fast path, past the stack, between a client and an endpoint elsewhere |
//! | `back` | answers leave by the device that their questions came in by |
//! | `fragments` | those that come before the first one |
//! | `errors` | ICMP errors that quote a packet of a connection |
//! | `answer` | resets and "port unreachable", for what is refused |
//! | `routes` | questions to the node's routes |
//! | `clock` | the time |
//! | `skb` | reading and editing `struct __sk_buff` |
//!
//! **Steps** are `extern "C"` functions: the verifier knows them by their types ("global functions", 5.6), and so walks each of
//! them once, not once for each way to get there. What they need stands in [`headers::State`], they get and give plain
//! numbers.
//!
//! Each hook is two programs: for devices with an Ethernet header, and for those without a link header.

mod answer;
mod back;
mod clock;
mod egress;
mod errors;
mod forward;
mod fragments;
mod headers;
mod ingress;
mod masquerade;
mod outgoing;
mod records;
mod routes;
mod skb;

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    macros::classifier,
    programs::TcContext,
};

/// The packet goes on, through other programs and then the stack.
const PASS: i32 = TC_ACT_UNSPEC;
/// The packet goes no further.
const DROP: i32 = TC_ACT_SHOT;

/// Bytes of an Ethernet header. Tags are not among them: see [`skb::Skb::version`].
const ETHERNET: u32 = 14;
/// Bytes of no header.
const NONE: u32 = 0;

/// Packets that come in through a device with an Ethernet header.
#[classifier]
pub(crate) fn ingress(ctx: TcContext) -> i32 {
    ingress::ingress::<ETHERNET>(&ctx)
}

/// Packets that go out through a device with an Ethernet header.
#[classifier]
pub(crate) fn egress(ctx: TcContext) -> i32 {
    egress::egress::<ETHERNET>(&ctx)
}

/// Packets that come in through a device without a link header.
#[classifier]
pub(crate) fn ingress_l3(ctx: TcContext) -> i32 {
    ingress::ingress::<NONE>(&ctx)
}

/// Packets that go out through a device without a link header.
#[classifier]
pub(crate) fn egress_l3(ctx: TcContext) -> i32 {
    egress::egress::<NONE>(&ctx)
}
