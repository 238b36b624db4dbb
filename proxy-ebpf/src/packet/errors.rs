//! ICMP errors that quote a packet of a connection: without their translation path-MTU discovery would end at a
//! NodePort, and clients would wait for endpoints that are unreachable.

use aya_ebpf::{bindings::__sk_buff, programs::TcContext};
use proxy_common::{
    PacketHook, Tuple,
    connection::{Answer, Flows as _, Leaving, Place, Request},
    packet::{Side, error},
};

use super::{
    DROP, PASS,
    headers::{self, State},
    ingress::find_source,
    skb::Skb,
};
use crate::tables::Maps;

/// Translates an error that comes in, if its packet is of a connection: it is for an endpoint, or for a client.
/// A step: see [`super`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn error_at_ingress(skb: *mut __sk_buff) -> i32 {
    let Some(state) = headers::state() else { return PASS };
    if read_quoted(skb) == 0 {
        return PASS;
    }
    if Place(find_source()).is_some() {
        state.routed = Tuple::new(0, state.ends.from(), state.ends.from());
        return translate_error(skb, PacketHook::Ingress as u32);
    }
    let State { tuple, ends, .. } = state;
    let hash = tuple.source_hash(Maps.seed());
    if Maps.find_anywhere::<Request>(tuple, hash, ends).is_some() {
        state.routed = Tuple::new(0, state.ends.to(), state.ends.to());
        return translate_error(skb, PacketHook::Ingress as u32);
    }
    PASS
}

/// Translates an error that leaves, if its packet is of a connection: it comes from an endpoint, or from a client.
/// A step: see [`super`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn error_at_egress(skb: *mut __sk_buff) -> i32 {
    let Some(state) = headers::state() else { return PASS };
    if read_quoted(skb) == 0 {
        return PASS;
    }
    let State { tuple, ends, origin, routed, .. } = state;
    let hash = tuple.destination_hash(Maps.seed());
    if Maps.find_anywhere::<Answer>(tuple, hash, ends).is_some() {
        *routed = Tuple::new(0, ends.asked(), ends.asked());
        return translate_error(skb, PacketHook::Egress as u32);
    }
    let hash = tuple.source_hash(Maps.seed());
    let place = Maps.find_anywhere::<Leaving>(tuple, hash, ends);
    if place.is_some() && ends.is_masqueraded() && Maps.read_origin(place, ends.check, origin) {
        *routed = Tuple::new(0, origin.masquerade(), origin.masquerade());
        return translate_error(skb, PacketHook::Egress as u32);
    }
    PASS
}

/// Reads the packet that an error quotes; 1 if it does. That of a packet of its connection which goes where the error goes is
/// left in the state. A step: see [`super`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn read_quoted(skb: *mut __sk_buff) -> u32 {
    let Some(State { network, tuple, begin, .. }) = headers::state() else { return 0 };
    let ctx = TcContext::new(skb);
    match error::parse(&Skb(&ctx), network) {
        // It is for whoever sent what it quotes.
        Some(quoted) if network.destination.words() == quoted.network.source.words() => {
            *tuple = quoted.tuple();
            begin.quoted = quoted;
            1
        }
        _ => 0,
    }
}

/// Puts the address and port that stand in `routed` in place. A step: see [`super`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn translate_error(skb: *mut __sk_buff, hook: u32) -> i32 {
    let Some(State { network, routed, begin, .. }) = headers::state() else { return DROP };
    let ctx = TcContext::new(skb);
    if begin.quoted.redirect {
        // The client would be told of another way to the endpoint, or worse, to the frontend.
        return DROP;
    }
    let side = if hook == PacketHook::Egress as u32 { Side::Source } else { Side::Destination };
    match error::rewrite(&mut Skb(&ctx), network, &begin.quoted, side, routed.to()) {
        Some(()) => PASS,
        None => DROP,
    }
}
