//! The packet programs, at TC: north-south traffic, and what pods send that no socket hook translated. They use the same maps
//! as the socket programs.
//!
//! Ingress rewrites destinations only, egress rewrites sources only: the stack in between sees the client and the
//! endpoint, and so do the CNI's conntrack, policies and routes.
//!
//! | file | concept |
//! |---|---|
//! | `ingress` | to a frontend: the endpoint; to a SNAT source: the client |
//! | `egress` | from an endpoint: the frontend; to an endpoint, if masqueraded: the SNAT source |
//! | `headers` | parsing the headers of a packet, and the state of the current packet |
//! | `records` | FLOWS and its companions, for `proxy_common::connection` |
//! | `masquerade` | whether a connection is masqueraded, and with which address |
//! | `outgoing` | answers to datagrams that left from a NodePort's number: they only look like requests |
//! | `forward` | the fast path, past the stack, between a client and an endpoint on another node |
//! | `back` | answers leave by the device at which their requests arrived |
//! | `fragments` | fragments that arrive before the first one |
//! | `errors` | ICMP errors that quote a packet of a connection |
//! | `answer` | TCP resets and ICMP "port unreachable" for refused packets |
//! | `unserved` | datagrams that leave for a Service without endpoints |
//! | `routes` | route lookups |
//! | `clock` | the time |
//! | `skb` | reading and editing `struct __sk_buff` |
//!
//! **Steps** are `extern "C"` functions: the verifier knows them by their types ("global functions", 5.6), so it
//! walks each of them once, not once for each path that leads there. Their inputs are in [`headers::State`]; they
//! take and return plain numbers.
//!
//! Each hook is two programs: for devices with an Ethernet header, and for those without a link header. Egress to pods of
//! this node is a third, which does less: pods' packets to each other pass it, too.
//!
//! **Successors**: while connections move to tables of another length, the programs on the present ones give a packet without a
//! record to those on the others ([`give_on`]). So every packet is looked up in both tables wherever it comes by, and
//! connections begin in the other one, from one moment on.

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
mod unserved;

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    macros::classifier,
    programs::TcContext,
};
use proxy_common::PacketHook;

use crate::{config, tables::SUCCESSORS};

/// The packet continues, through other programs and then the stack.
const PASS: i32 = TC_ACT_UNSPEC;
/// The packet is dropped.
const DROP: i32 = TC_ACT_SHOT;

/// Length of an Ethernet header, without tags: see [`skb::Skb::version`].
const ETHERNET: u32 = 14;
/// Length of the link header of a device without one.
const NONE: u32 = 0;

/// Gives a packet without a record to the same program on the tables that connections move to. Returns if there is none.
#[inline(always)]
fn give_on<const LINK: u32>(ctx: &TcContext, hook: PacketHook) {
    give_on_to(ctx, hook.place(LINK == ETHERNET));
}

/// The same, by the program's place in SUCCESSORS.
#[inline(always)]
fn give_on_to(ctx: &TcContext, place: u32) {
    if config::has_tail_calls() {
        // SAFETY: nothing is held, and the packet is as it came.
        unsafe { SUCCESSORS.tail_call(ctx, place) };
    }
}

/// The same for a packet whose connection has ended: its ports may be those of one that began in the other tables.
#[inline(always)]
fn give_ended_on(ctx: &TcContext, state: &headers::State, place: u32) {
    if state.ends.seen.ended() {
        give_on_to(ctx, place);
    }
}

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

/// Packets that go out to a pod of this node.
#[classifier]
pub(crate) fn egress_pod(ctx: TcContext) -> i32 {
    egress::to_pod(&ctx)
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
