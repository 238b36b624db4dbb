//! ICMP errors that quote a packet of a connection: without them path-MTU discovery ends at a NodePort, and a client waits
//! where it could have learned that nobody is there.

use aya_ebpf::{bindings::__sk_buff, programs::TcContext};
use proxy_common::{
    Address, PacketHook, Port,
    connection::{Answer, Flows as _, Leaving, Request, find_anywhere, find_by_source},
    packet::error::{self, Quoted},
};

use super::{
    DROP, PASS,
    headers::{self, State},
    skb::Skb,
};
use crate::tables::Maps;

/// Translates an error that comes in, if its packet is of a connection: it is for an endpoint, or for a client.
/// A step: see [`super`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn error_at_ingress(skb: *mut __sk_buff) -> i32 {
    let (ctx, Some(state)) = (&TcContext::new(skb), headers::state()) else { return PASS };
    let Some(quoted) = quoted(ctx, state) else { return PASS };
    let State { tuple, ends, origin, owners, .. } = state;
    if find_by_source(&Maps, tuple, owners, ends, origin).is_some() {
        let client = ends.from();
        return translate(ctx, state, &quoted, PacketHook::Ingress, client);
    }
    let hash = tuple.source_hash(Maps.seed());
    if find_anywhere::<Request>(&Maps, tuple, hash, ends).is_some() {
        let endpoint = ends.to();
        return translate(ctx, state, &quoted, PacketHook::Ingress, endpoint);
    }
    PASS
}

/// Translates an error that leaves, if its packet is of a connection: it comes from an endpoint, or from a client.
/// A step: see [`super`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn error_at_egress(skb: *mut __sk_buff) -> i32 {
    let (ctx, Some(state)) = (&TcContext::new(skb), headers::state()) else { return PASS };
    let Some(quoted) = quoted(ctx, state) else { return PASS };
    let State { tuple, ends, origin, .. } = state;
    let hash = tuple.destination_hash(Maps.seed());
    if find_anywhere::<Answer>(&Maps, tuple, hash, ends).is_some() {
        let frontend = ends.asked();
        return translate(ctx, state, &quoted, PacketHook::Egress, frontend);
    }
    let hash = tuple.source_hash(Maps.seed());
    let place = find_anywhere::<Leaving>(&Maps, tuple, hash, ends);
    if place.is_some() && ends.is_masqueraded() && Maps.read_origin(place, ends.check, origin) {
        let source = origin.masquerade();
        return translate(ctx, state, &quoted, PacketHook::Egress, source);
    }
    PASS
}

/// The packet that an error quotes. That of a packet of its connection which goes where the error goes is left in `state`.
#[inline(always)]
fn quoted(ctx: &TcContext, state: &mut State) -> Option<Quoted> {
    let quoted = error::parse(&Skb(ctx), &state.network)?;
    // It is for whoever sent what it quotes.
    if state.network.destination.words() != quoted.network.source.words() {
        return None;
    }
    state.tuple = quoted.tuple();
    Some(quoted)
}

#[inline(always)]
fn translate(ctx: &TcContext, state: &State, quoted: &Quoted, hook: PacketHook, new: (Address, Port)) -> i32 {
    if quoted.redirect {
        // The client would be told of another way to the endpoint, or worse, to the frontend.
        return DROP;
    }
    match error::rewrite(&mut Skb(ctx), &state.network, quoted, hook.side(), new) {
        Some(()) => PASS,
        None => DROP,
    }
}
