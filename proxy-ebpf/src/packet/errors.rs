//! ICMP errors that quote a packet of a connection. Without their translation, path MTU discovery would end at a
//! NodePort, and clients would wait for unreachable endpoints.

use aya_ebpf::{bindings::__sk_buff, programs::TcContext};
use proxy_common::{
    PacketHook, Tuple,
    connection::{Answer, Flows as _, Leaving, RecordId, Request},
    packet::{Side, error},
};

use super::{
    DROP, PASS,
    headers::{self, State},
    ingress::find_source,
    skb::Skb,
};
use crate::tables::Maps;

/// Returned instead of an action: the quoted packet belongs to no connection.
pub(super) const WITHOUT_RECORD: i32 = -1000;

/// Translates an incoming error, to an endpoint or a client, that quotes a packet of a connection. A step: see
/// [`super`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn error_at_ingress(skb: *mut __sk_buff) -> i32 {
    let Some(state) = headers::state() else { return PASS };
    if read_quoted(skb) == 0 {
        return PASS;
    }
    if RecordId(find_source()).is_some() {
        state.routed = Tuple::new(0, state.ends.from(), state.ends.from());
        return translate_error(skb, PacketHook::Ingress as u32);
    }
    let State { tuple, ends, .. } = state;
    let hash = tuple.source_hash(Maps.seed());
    if Maps.find_anywhere::<Request>(tuple, hash, ends).is_some() {
        state.routed = Tuple::new(0, state.ends.to(), state.ends.to());
        return translate_error(skb, PacketHook::Ingress as u32);
    }
    WITHOUT_RECORD
}

/// Translates an outgoing error, from an endpoint or a client, that quotes a packet of a connection. A step: see
/// [`super`].
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
    let id = Maps.find_anywhere::<Leaving>(tuple, hash, ends);
    if id.is_some() && ends.is_masqueraded() && Maps.read_origin(id, ends.check, origin) {
        *routed = Tuple::new(0, origin.masquerade(), origin.masquerade());
        return translate_error(skb, PacketHook::Egress as u32);
    }
    WITHOUT_RECORD
}

/// Parses the packet that an error quotes; returns 1 on success. Sets `tuple` in the state to the tuple of the
/// connection in the direction of the error. A step: see [`super`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn read_quoted(skb: *mut __sk_buff) -> u32 {
    let Some(State { network, tuple, begin, .. }) = headers::state() else { return 0 };
    let ctx = TcContext::new(skb);
    match error::parse(&Skb(&ctx), network) {
        // The error must be addressed to the sender of the quoted packet.
        Some(quoted) if network.destination.words() == quoted.network.source.words() => {
            *tuple = quoted.tuple();
            begin.quoted = quoted;
            1
        }
        _ => 0,
    }
}

/// Rewrites the error with the address and port in `routed`. A step: see [`super`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn translate_error(skb: *mut __sk_buff, hook: u32) -> i32 {
    let Some(State { network, routed, begin, .. }) = headers::state() else { return DROP };
    let ctx = TcContext::new(skb);
    if begin.quoted.redirect {
        // A redirect would tell the client another gateway to the endpoint or, worse, to the frontend.
        return DROP;
    }
    let side = if hook == PacketHook::Egress as u32 { Side::Source } else { Side::Destination };
    match error::rewrite(&mut Skb(&ctx), network, &begin.quoted, side, routed.to()) {
        Some(()) => PASS,
        None => DROP,
    }
}
