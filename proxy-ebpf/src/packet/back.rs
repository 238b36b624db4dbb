//! Return paths: an answer leaves by the device that its request arrived at, even if the policy rules for the
//! endpoint's address choose another one (PO-28), as they do for pods on a cloud's secondary interfaces. Clouds drop
//! packets that leave by another interface with the frontend's address. netfilter solves this with marks.

use aya_ebpf::{
    bindings::{BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS},
    helpers::bpf_redirect_neigh,
    programs::TcContext,
};

use super::{ETHERNET, PASS, headers::State, routes, skb::Skb};

/// Redirects an answer, already rewritten to the frontend's address, to `device`, if the routes for packets from
/// the frontend lead there. [`PASS`]: the answer keeps the route that the stack chose.
#[inline(always)]
pub(super) fn send<const LINK: u32>(ctx: &TcContext, state: &mut State, device: u32) -> i32 {
    if device == Skb(ctx).device() || device == 0 || LINK != ETHERNET {
        return PASS;
    }
    send_by(ctx, state, device)
}

#[inline(never)]
fn send_by(ctx: &TcContext, state: &mut State, device: u32) -> i32 {
    let State { network, ends, lookup, .. } = state;
    routes::ask(lookup, network, &ends.frontend, &ends.client);
    let answer = routes::lookup(ctx, lookup, device, 0);
    let is_there =
        matches!(answer, BPF_FIB_LKUP_RET_SUCCESS | BPF_FIB_LKUP_RET_NO_NEIGH | BPF_FIB_LKUP_RET_FRAG_NEEDED);
    if !is_there || lookup.ifindex != device {
        return PASS;
    }
    Skb(ctx).set_sent_on();
    // SAFETY: the pointer may be null.
    unsafe { bpf_redirect_neigh(device, core::ptr::null_mut(), 0, 0) as i32 }
}
