//! Egress rewrites sources: an endpoint's answer gets the frontend's address, and a masqueraded request gets an
//! address and source port of the node.

use aya_ebpf::programs::TcContext;
use proxy_common::{
    NodeEvent, PacketHook,
    connection::{self, Answer, Flows as _, Leaving, RecordId, answered, find, left, read_source},
};

use super::{
    DROP, ETHERNET, PASS, back,
    clock::clock,
    errors, give_ended_on, give_on, give_on_to,
    headers::{self, Kind, State},
    outgoing,
    skb::Skb,
    unserved,
};
use crate::{events, tables::Maps};

#[inline(always)]
pub(super) fn egress<const LINK: u32>(ctx: &TcContext) -> i32 {
    let skb = Skb(ctx);
    if skb.is_sent_on() {
        return PASS;
    }
    let Some(state) = headers::state() else { return PASS };
    match headers::read::<LINK>(&skb, PacketHook::Egress, state) {
        Kind::Other | Kind::Late => return PASS,
        Kind::Control => {
            let action = errors::error_at_egress(ctx.skb.skb);
            if action != errors::WITHOUT_RECORD {
                return action;
            }
            give_on::<LINK>(ctx, PacketHook::Egress);
            return PASS;
        }
        Kind::Packet => {}
    }
    let mut id = find::<Answer>(&Maps, &state.tuple, &mut state.ends);
    if !id.is_some() && Maps::has_owners(state.tuple.destination_port) {
        id = RecordId(find_remapped(0));
    }
    if id.is_some() {
        return answer::<LINK>(ctx, state, id, PacketHook::Egress.place(LINK == ETHERNET));
    }
    let mut id = find::<Leaving>(&Maps, &state.tuple, &mut state.ends);
    if !id.is_some() && Maps::has_owners(state.tuple.source_port) {
        id = RecordId(find_remapped(1));
    }
    if id.is_some() && state.ends.is_masqueraded() {
        give_ended_on(ctx, state, PacketHook::Egress.place(LINK == ETHERNET));
        return masquerade(ctx, state, id);
    }
    give_on::<LINK>(ctx, PacketHook::Egress);
    outgoing::note(state);
    unserved::refuse::<LINK>(ctx, state)
}

/// A packet to a pod of this node: perhaps an answer to a request that it sent by this device. Only a client that is its own
/// endpoint is masqueraded there.
#[inline(always)]
pub(super) fn to_pod(ctx: &TcContext) -> i32 {
    let skb = Skb(ctx);
    if skb.is_sent_on() {
        return PASS;
    }
    let Some(state) = headers::state() else { return PASS };
    match headers::read::<ETHERNET>(&skb, PacketHook::Egress, state) {
        Kind::Other | Kind::Late => return PASS,
        Kind::Control => {
            let action = errors::error_at_egress(ctx.skb.skb);
            if action != errors::WITHOUT_RECORD {
                return action;
            }
            give_on_to(ctx, PacketHook::TO_POD);
            return PASS;
        }
        Kind::Packet => {}
    }
    let mut id = find::<Answer>(&Maps, &state.tuple, &mut state.ends);
    if !id.is_some() && Maps::has_owners(state.tuple.destination_port) {
        id = RecordId(find_remapped(0));
    }
    if id.is_some() {
        return answer::<ETHERNET>(ctx, state, id, PacketHook::TO_POD);
    }
    if state.tuple.source.words() == state.tuple.destination.words() {
        let id = find::<Leaving>(&Maps, &state.tuple, &mut state.ends);
        if id.is_some() && state.ends.is_masqueraded() {
            give_ended_on(ctx, state, PacketHook::TO_POD);
            return masquerade(ctx, state, id);
        }
    }
    give_on_to(ctx, PacketHook::TO_POD);
    outgoing::note(state);
    PASS
}

/// Finds the record of a remapped connection by an answer (`leaves`: 0) or a request (1); returns a [`RecordId`]. A step:
/// see [`super`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn find_remapped(leaves: u32) -> u32 {
    let Some(State { tuple, owners, ends, origin, routed, .. }) = headers::state() else {
        return RecordId::NONE.0;
    };
    *routed = if leaves == 0 { *tuple } else { tuple.reversed() };
    connection::find_remapped(&Maps, routed, owners, ends, origin).0
}

/// An answer. It leaves by the device at which its request arrived. Where it is of another connection, that one may have begun in
/// the other tables: the program's place in SUCCESSORS is `place`.
#[inline(always)]
fn answer<const LINK: u32>(ctx: &TcContext, state: &mut State, id: RecordId, place: u32) -> i32 {
    let State { transport, seconds, ends, .. } = state;
    if !answered(&Maps, id, ends, transport, true, clock(seconds)) {
        give_on_to(ctx, place);
        return PASS;
    }
    let action = if ends.is_remapped() {
        headers::remap(ctx.skb.skb, PacketHook::Egress as u32)
    } else {
        let frontend = ends.asked();
        headers::rewrite(ctx, state, PacketHook::Egress, frontend)
    };
    if action == PASS {
        return back::send::<LINK>(ctx, state, Maps.device_of(id));
    }
    action
}

/// A masqueraded packet from a client to an endpoint.
#[inline(always)]
fn masquerade(ctx: &TcContext, state: &mut State, id: RecordId) -> i32 {
    let State { ends, origin, owners, .. } = state;
    if !read_source(&Maps, id, ends, origin, owners) {
        // Its source port now belongs to another connection. Nor may the packet leave with the address of the
        // client.
        events::lost(ends, id.index(), NodeEvent::WithoutSource);
        return DROP;
    }
    left(&Maps, id, ends);
    let source = origin.masquerade();
    headers::rewrite(ctx, state, PacketHook::Egress, source)
}
