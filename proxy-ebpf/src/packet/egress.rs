//! Egress rewrites sources: an endpoint's answer gets the frontend's address, and a masqueraded request gets an
//! address and source port of the node.

use aya_ebpf::programs::TcContext;
use proxy_common::{
    NodeEvent, PacketHook,
    connection::{Answer, Flows as _, Leaving, RecordId, answered, find, has_port, left},
};

use super::{
    DROP, PASS, back,
    clock::clock,
    errors, give_on,
    headers::{self, Kind, State},
    outgoing,
    skb::Skb,
    unserved,
};
use crate::{count, tables::Maps};

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
    let id = find::<Answer>(&Maps, &state.tuple, &mut state.ends);
    if id.is_some() {
        return answer::<LINK>(ctx, state, id);
    }
    let id = find::<Leaving>(&Maps, &state.tuple, &mut state.ends);
    if id.is_some() && state.ends.is_masqueraded() {
        return masquerade(ctx, state, id);
    }
    give_on::<LINK>(ctx, PacketHook::Egress);
    outgoing::note(state);
    unserved::refuse::<LINK>(ctx, state)
}

/// An answer. It leaves by the device at which its request arrived.
#[inline(always)]
fn answer<const LINK: u32>(ctx: &TcContext, state: &mut State, id: RecordId) -> i32 {
    let State { transport, seconds, ends, .. } = state;
    if !answered(&Maps, id, ends, transport, true, clock(seconds)) {
        return PASS;
    }
    let frontend = ends.asked();
    let action = headers::rewrite(ctx, state, PacketHook::Egress, frontend);
    if action == PASS {
        return back::send::<LINK>(ctx, state, Maps.device_of(id));
    }
    action
}

/// A masqueraded packet from a client to an endpoint.
#[inline(always)]
fn masquerade(ctx: &TcContext, state: &mut State, id: RecordId) -> i32 {
    let State { ends, origin, owners, .. } = state;
    let is_whole = Maps.read_origin(id, ends.check, origin);
    if !is_whole || (ends.seen.ended() && !has_port(&Maps, id, ends, origin.source_port, owners)) {
        // Its source port now belongs to another connection. Nor may the packet leave with the address of the
        // client.
        count::event(NodeEvent::WithoutSource);
        return DROP;
    }
    left(&Maps, id, ends);
    let source = origin.masquerade();
    headers::rewrite(ctx, state, PacketHook::Egress, source)
}
