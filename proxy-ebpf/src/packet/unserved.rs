//! Datagrams that leave the node for a Service address without an endpoint. UDP sockets are connected to it all the
//! same, so that the process learns its own address; what they send is refused here, as netfilter's REJECT would: with
//! ICMP "port unreachable", which the socket reports as ECONNREFUSED.
//!
//! All other datagrams that leave cost one lookup in a bitmap.

use aya_ebpf::{bindings::BPF_F_INGRESS, helpers::bpf_redirect, programs::TcContext};
use proxy_common::{
    AddressBits, FrontendKey, Protocol, Reason, RefusedPair, Scope, Service, Tables as _, Tuple,
};

use super::{DROP, PASS, answer, headers, headers::State, skb::Skb};
use crate::{events, tables::Maps};

/// Refuses a datagram without a record, if it leaves for a Service address without an endpoint.
#[inline(always)]
pub(super) fn refuse<const LINK: u32>(ctx: &TcContext, state: &State) -> i32 {
    let State { tuple, .. } = state;
    if tuple.protocol != Protocol::Udp as u8 || !Maps::may_be_ours(&tuple.destination) {
        return PASS;
    }
    match refuse_unserved() {
        ANSWER if answer::refuse_packet(ctx.skb.skb, LINK) != DROP => {
            // Not out to the wire, but back into the node.
            // SAFETY: the helper takes no pointers.
            unsafe { bpf_redirect(Skb(ctx).device(), u64::from(BPF_F_INGRESS)) as i32 }
        }
        ANSWER | DROPPED => DROP,
        _ => PASS,
    }
}

/// The datagram goes on: there is no Service, or it has endpoints and the sender's socket is not served by the hooks.
const SERVED: u32 = 0;
const DROPPED: u32 = 1;
const ANSWER: u32 = 2;

/// Whether to refuse the datagram, and how; one of the numbers above. A step: see [`super`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn refuse_unserved() -> u32 {
    let Some(State { tuple, .. }) = headers::state() else { return SERVED };
    let key = FrontendKey::new(tuple.destination, tuple.destination_port, tuple.protocol);
    let Some(frontend) = Maps.frontend(&key) else {
        if Maps.address(&tuple.destination).has(AddressBits::CLUSTER_IP) {
            return count_refusal(tuple, &key, RefusedPair::NO_SERVICE, Reason::UnknownPort);
        }
        return SERVED;
    };
    match Maps.span(frontend.service, Service::set(frontend.kind(), Scope::Inside)) {
        Some(span) if span.count == 0 => {
            count_refusal(tuple, &key, frontend.service, Reason::from_number(span.base))
        }
        _ => SERVED,
    }
}

#[inline(always)]
fn count_refusal(tuple: &Tuple, frontend: &FrontendKey, service: u32, reason: Reason) -> u32 {
    events::refused_packet(&tuple.source, frontend, service, reason);
    if reason.is_answered() { ANSWER } else { DROPPED }
}
