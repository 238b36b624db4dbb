//! The packet hooks, at TC: what comes from outside of the node, from the same tables as the socket hooks.
//!
//! Ingress rewrites destinations only, egress rewrites sources only: the stack in between, and with it the CNI's
//! connection tracking, policies and routes, sees the client and the endpoint.
//!
//! | file | concept |
//! |---|---|
//! | `ingress` | to a frontend: the endpoint; to a masqueraded source: the client |
//! | `egress` | from an endpoint: the frontend; to an endpoint elsewhere: a source of the node's |
//! | `arriving` | a packet as both hooks see it: its headers, its flow |
//! | `forward` | past the stack, between a client and an endpoint elsewhere |
//! | `source` | which address and port a flow is masqueraded with |
//! | `errors` | ICMP errors that quote a packet of a flow |
//! | `answer` | resets and "port unreachable", for what is refused |
//! | `skb` | reading and editing `struct __sk_buff` |
//! | `flows` | FLOWS, as `proxy_common::nat` uses it |
//!
//! Each hook is two programs: for devices with an Ethernet header, and for those without a link header.

mod answer;
mod arriving;
mod egress;
mod errors;
mod flows;
mod forward;
mod ingress;
mod skb;
mod source;

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
