//! Fragments of a datagram that come before the first one, which alone has the ports (PO-29). netfilter reassembles; here they
//! are held for a moment: they go round by the device's own queue, until the first one has come by or the time is over. Only a
//! few in a second, since that keeps a processor busy.

use aya_ebpf::{
    bindings::BPF_F_INGRESS,
    helpers::{bpf_ktime_get_ns, bpf_redirect},
    programs::TcContext,
};
use proxy_common::{PacketHook, Tables as _, Total, packet::Fragment};

use super::{
    ETHERNET, PASS,
    headers::{self, State},
    skb::Skb,
};
use crate::{
    count,
    tables::{HELD_RATE, Maps},
};

/// For how many milliseconds a fragment is held.
const PATIENCE: u32 = 10;
/// How many are held in a second.
const HELD: u64 = 32;

/// Keeps the ports of a first fragment that comes in for the node or a Service, for the later ones.
#[inline(always)]
pub(super) fn first(state: &State) {
    if matches!(state.network.fragment, Fragment::First) {
        keep(state);
    }
}

#[inline(never)]
fn keep(state: &State) {
    let State { network, transport, .. } = state;
    if Maps.has_owners(transport.destination) || !Maps.address(&network.destination).is_none() {
        headers::remember(network, *transport, PacketHook::Ingress);
    }
}

/// A later fragment of a datagram of which nothing is known.
#[inline(never)]
pub(super) fn late<const LINK: u32>(ctx: &TcContext, state: &State) -> i32 {
    if Maps.address(&state.network.destination).is_none() {
        return PASS;
    }
    let skb = Skb(ctx);
    // SAFETY: a helper without pointers.
    let now = (unsafe { bpf_ktime_get_ns() } >> 20) as u32;
    // Devices without a link header would get it back with one.
    let may_wait = match skb.held_since() {
        Some(since) => now.wrapping_sub(since) <= PATIENCE,
        None => LINK == ETHERNET && count::take(&HELD_RATE, HELD),
    };
    if may_wait {
        skb.set_held_since(skb.held_since().unwrap_or(now));
        // SAFETY: a helper without pointers.
        return unsafe { bpf_redirect(skb.device(), u64::from(BPF_F_INGRESS)) as i32 };
    }
    count::event(Total::LateFragment);
    PASS
}
