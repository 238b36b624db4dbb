//! Fragments of a datagram that arrive before the first one, which alone has the ports (PO-29). netfilter
//! reassembles; here the program sends them around through the device's own queue until the first fragment has
//! arrived or their time is over. That keeps a processor busy, so a rate limit bounds the rounds of all fragments.

use aya_ebpf::{
    bindings::BPF_F_INGRESS,
    helpers::{bpf_ktime_get_ns, bpf_redirect},
    programs::TcContext,
};
use proxy_common::{NodeEvent, PacketHook, Tables as _, packet::Fragment};

use super::{
    ETHERNET, PASS,
    headers::{self, State},
    skb::{Held, Skb},
};
use crate::{
    count,
    tables::{HELD_RATE, Maps},
};

/// Time for which a fragment is held, in units of 2^20 ns (about a millisecond), and the minimum number of its
/// rounds: on a busy node the first fragment may wait behind it in the queue for long.
const PATIENCE: u32 = 50;
const LEAST: u32 = 100;
/// Rounds per second, of about a microsecond each: enough for two hundred datagrams whose fragments arrive a
/// millisecond apart.
const ROUNDS: u64 = 300_000;

/// Stores the ports of an incoming first fragment, to the node or a Service, for the later fragments: at ingress,
/// and at egress, where another processor may handle a later fragment before the first one.
#[inline(always)]
pub(super) fn first(state: &State) {
    if matches!(state.network.fragment, Fragment::First) {
        keep(state);
    }
}

#[inline(never)]
fn keep(state: &State) {
    let State { network, tuple, routed, .. } = state;
    if Maps::has_owners(tuple.destination_port) || !Maps.address(&tuple.destination).is_none() {
        if routed.source.words() == tuple.source.words() {
            headers::remember(network, routed, PacketHook::Egress);
        }
        headers::remember(network, tuple, PacketHook::Ingress);
    }
}

/// A later fragment of a datagram whose ports are unknown.
#[inline(never)]
pub(super) fn late<const LINK: u32>(ctx: &TcContext, state: &State) -> i32 {
    if Maps.address(&state.network.destination).is_none() {
        return PASS;
    }
    let skb = Skb(ctx);
    // SAFETY: the helper takes no pointers.
    let now = (unsafe { bpf_ktime_get_ns() } >> 20) as u32;
    // On a device without a link header, the packet would come back with one.
    let Held { since, rounds } = skb.held().unwrap_or(Held { since: now & Held::CLOCK, rounds: 0 });
    let is_in_time = now.wrapping_sub(since) & Held::CLOCK <= PATIENCE || rounds < LEAST;
    if LINK == ETHERNET && is_in_time && count::take(HELD_RATE.get_ptr_mut(0), ROUNDS) {
        skb.set_held(Held { since, rounds: if rounds < LEAST { rounds + 1 } else { rounds } });
        // SAFETY: the helper takes no pointers.
        return unsafe { bpf_redirect(skb.device(), u64::from(BPF_F_INGRESS)) as i32 };
    }
    count::event(NodeEvent::LateFragment);
    PASS
}
