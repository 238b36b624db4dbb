//! ICMP errors that quote a packet of a flow: without them path-MTU discovery ends at a NodePort, and a client waits where
//! it could have learned that nobody is there.

use aya_ebpf::programs::TcContext;
use proxy_common::{FlowKey, Network, PacketHook, nat::Flows as _, packet::error};

use super::{DROP, PASS, skb::Skb};
use crate::tables::Maps;

/// Translates an error, if it is one and its packet is of a flow. `key` is where the key of that is put together.
#[inline(never)]
pub(super) fn translate(ctx: &TcContext, outer: &Network, key: &mut FlowKey, hook: PacketHook) -> i32 {
    let mut skb = Skb(ctx);
    let Some(quoted) = error::parse(&skb, outer) else { return PASS };
    // It is for whoever sent what it quotes.
    if outer.destination.words() != quoted.network.source.words() {
        return PASS;
    }
    *key = quoted.key(hook);
    let Some((flow, _)) = Maps.find_rarely(key) else { return PASS };
    if flow.is_pending() {
        return PASS;
    }
    if quoted.redirect {
        // The client would be told of another way to the endpoint, or worse, to the frontend.
        return DROP;
    }
    match error::rewrite(&mut skb, outer, &quoted, hook.side(), (flow.address, flow.port)) {
        Some(()) => PASS,
        None => DROP,
    }
}
