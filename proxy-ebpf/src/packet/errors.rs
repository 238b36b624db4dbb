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
    egress::find_remapped,
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
        let client = state.ends.inside(&state.origin);
        state.routed = Tuple::new(0, client, client);
        return translate_error(skb, PacketHook::Ingress as u32);
    }
    let State { tuple, ends, origin, routed, .. } = state;
    let hash = tuple.source_hash(Maps.seed());
    let id = Maps.find_anywhere::<Request>(tuple, hash, ends);
    if !id.is_some() {
        return WITHOUT_RECORD;
    }
    *routed = Tuple::new(0, ends.to(), ends.to());
    if ends.is_remapped() {
        // The endpoint has sent to another port.
        if !Maps.read_origin(id, ends.check, origin)
            || renumber_error(skb, PacketHook::Ingress as u32) != PASS
        {
            return DROP;
        }
    }
    translate_error(skb, PacketHook::Ingress as u32)
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
    let hash = state.tuple.destination_hash(Maps.seed());
    let mut id = Maps.find_anywhere::<Answer>(&state.tuple, hash, &mut state.ends);
    if !id.is_some() {
        id = RecordId(find_remapped(0));
    }
    if id.is_some() {
        state.routed = Tuple::new(0, state.ends.asked(), state.ends.asked());
        if state.ends.is_remapped() && renumber_error(skb, PacketHook::Egress as u32) != PASS {
            return DROP;
        }
        return translate_error(skb, PacketHook::Egress as u32);
    }
    let hash = state.tuple.source_hash(Maps.seed());
    let mut id = Maps.find_anywhere::<Leaving>(&state.tuple, hash, &mut state.ends);
    if !id.is_some() {
        id = RecordId(find_remapped(1));
    }
    let State { ends, origin, routed, .. } = state;
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

/// Replaces the port of a remapped client in the packet that an error quotes: by the source port at ingress, by the client's
/// own at egress. A step: see [`super`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn renumber_error(skb: *mut __sk_buff, hook: u32) -> i32 {
    let Some(State { network, ends, origin, begin, .. }) = headers::state() else { return DROP };
    let (side, port) = if hook == PacketHook::Egress as u32 {
        (Side::Source, ends.client_port)
    } else {
        (Side::Destination, origin.source_port)
    };
    let ctx = TcContext::new(skb);
    match error::renumber(&mut Skb(&ctx), network, &begin.quoted, side, port) {
        Some(()) => PASS,
        None => DROP,
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
