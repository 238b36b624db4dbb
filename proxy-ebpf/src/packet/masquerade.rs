//! Decides, when a connection begins, whether and with which address it is masqueraded, by the route to its
//! endpoint.
//!
//! A connection from outside is masqueraded if the endpoint is on another node; if the endpoint is on this node but its answers would
//! bypass the node, because the route to it leaves by an uplink (a pod on a bridge with the uplink, macvlan, an
//! interface of its own); and if the endpoint is the client itself (hairpin), which would drop packets with its
//! own source address as forged (PO-22).
//!
//! A pod's keeps its source, as the answer comes back to this node. Only if the endpoint is the pod itself, or if it is on
//! another node and the client is behind the pod (a VPN's, a router's), whose address other nodes may not know, is it masqueraded.

use aya_ebpf::{
    bindings::{
        __sk_buff, BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS,
        bpf_fib_lookup as Lookup,
    },
    programs::TcContext,
};
use proxy_common::{
    Address, Endpoint, Interface, Network,
    connection::{Draft, Ends, Rival, try_port},
};

use super::{
    headers::{self, State},
    outgoing, routes,
    skb::Skb,
};
use crate::{
    config,
    tables::{INTERFACES, Maps},
};

/// `BPF_FIB_LOOKUP_SKIP_NEIGH` (6.3).
const SKIP_NEIGHBOUR: u32 = 1 << 2;
/// `BPF_FIB_LOOKUP_SRC` (6.7).
const SOURCE: u32 = 1 << 4;

/// The flags of a connection to the chosen endpoint. The source address that the routes prefer is left in
/// `lookup`.
#[inline(never)]
pub(super) fn flags(ctx: &TcContext, state: &mut State) -> u8 {
    let State { network, lookup, begin, .. } = state;
    let endpoint: &Endpoint = &begin.endpoint;
    let keeps_source = begin.device & Interface::KEEPS_SOURCE != 0;
    let is_behind =
        keeps_source && !endpoint.is_local() && is_behind_gateway(ctx, network, lookup, &endpoint.address);
    let flags = if config::has_fib_source() { SKIP_NEIGHBOUR | SOURCE } else { 0 };
    routes::ask(lookup, network, &network.source, &endpoint.address);
    let answer = routes::lookup(ctx, lookup, Skb(ctx).device(), flags);
    let local = if endpoint.is_local() { Ends::LOCAL } else { 0 };
    let leaves = if keeps_source {
        is_behind
    } else {
        local == 0 || (is_route(answer) && masquerades_at(lookup.ifindex))
    };
    let is_itself = endpoint.address.words() == network.source.words();
    local | if leaves || is_itself { Ends::MASQUERADED } else { 0 }
}

#[inline(always)]
fn is_route(answer: u32) -> bool {
    matches!(answer, BPF_FIB_LKUP_RET_SUCCESS | BPF_FIB_LKUP_RET_NO_NEIGH | BPF_FIB_LKUP_RET_FRAG_NEEDED)
}

/// Whether a device has the programs, and does not lead to pods alone.
#[inline(always)]
fn masquerades_at(device: u32) -> bool {
    let Some(interface) = INTERFACES.get_ptr(&device) else { return false };
    // SAFETY: the element lives as long as the program runs.
    unsafe { (*interface).flags & Interface::KEEPS_SOURCE == 0 }
}

/// Whether packets to the client go to a gateway.
#[inline(always)]
fn is_behind_gateway(ctx: &TcContext, network: &Network, lookup: &mut Lookup, endpoint: &Address) -> bool {
    routes::ask(lookup, network, endpoint, &network.source);
    let flags = if config::has_fib_source() { SKIP_NEIGHBOUR } else { 0 };
    is_route(routes::lookup(ctx, lookup, Skb(ctx).device(), flags))
        && routes::gateway(lookup, network, &network.source)
}

/// Chooses the SNAT address, after [`flags`]. `false` if there is none, or none that the agent knows yet: ingress
/// would ignore answers to it.
#[inline(never)]
pub(super) fn address(ctx: &TcContext, state: &mut State) -> bool {
    let State { network, lookup, begin, .. } = state;
    if config::has_fib_source() {
        let preferred = routes::source(lookup, network);
        if preferred.words() != network.source.words() && is_known(&preferred) {
            begin.draft.origin.source = preferred;
            return true;
        }
    }
    let is_known = at_device(&network.source, lookup.ifindex, &mut begin.draft.origin.source);
    is_known || at_device(&network.source, Skb(ctx).device(), &mut begin.draft.origin.source)
}

#[inline(always)]
fn is_known(address: &Address) -> bool {
    !address.is_unspecified() && Maps::may_be_ours(address)
}

/// The address of the node on a device.
#[inline(always)]
fn at_device(client: &Address, device: u32, address: &mut Address) -> bool {
    let v6 = !client.is_v4();
    let Some(found) = INTERFACES.get_ptr(&device) else { return false };
    // SAFETY: the element lives as long as the program runs. The address can be torn only while the device is
    // renumbered.
    *address = unsafe { if v6 { (*found).v6 } else { (*found).v4 } };
    is_known(address) && address.words() != client.words()
}

/// Takes the candidate source port of the draft; returns 1 on success. A step: see [`super`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn try_source_port(skb: *mut __sk_buff, rival: u32) -> u32 {
    let Some(State { begin, .. }) = headers::state() else { return 0 };
    let rival = if rival == Rival::Patient as u32 { Rival::Patient } else { Rival::Impatient };
    let ctx = TcContext::new(skb);
    // Conntrack, or a socket of the node with this address and port, would receive the answers.
    let is_taken = |draft: &Draft| {
        Maps::may_be_foreign(draft)
            || outgoing::has_socket(&ctx, draft.ends.protocol, draft.ends.to(), draft.origin.masquerade())
    };
    try_port(&Maps, &mut begin.draft, rival, is_taken).into()
}
