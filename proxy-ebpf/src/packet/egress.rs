//! Egress: sources. A reply of an endpoint comes from the frontend; what leaves for an endpoint elsewhere comes from the
//! node.

use aya_ebpf::programs::TcContext;
use proxy_common::{PacketHook, Reason, nat};

use super::{
    DROP, PASS,
    arriving::{self, Arriving, State},
    errors,
    flows::clock,
    skb::Skb,
    source,
};
use crate::{count, tables::Maps};

#[inline(always)]
pub(super) fn egress<const LINK: u32>(ctx: &TcContext) -> i32 {
    let skb = Skb(ctx);
    if skb.is_sent_on() {
        return PASS;
    }
    let Some(state) = arriving::state() else { return PASS };
    match arriving::read::<LINK>(&skb, PacketHook::Egress, state) {
        Arriving::Other | Arriving::Late => return PASS,
        Arriving::Control => {
            return errors::translate(ctx, &state.network, &mut state.key, PacketHook::Egress);
        }
        Arriving::Packet => {}
    }
    let State { transport, seconds, key, flow, .. } = state;
    let clock = clock(seconds);
    if !nat::follow(&Maps, key, transport.segment.leaving(), clock, flow) {
        return PASS;
    }
    if flow.is_pending() {
        let service = flow.service;
        if let Err(reason) = source::give(ctx, key, flow, clock) {
            match reason {
                Reason::FlowTableFull => count::node_refusal(reason),
                reason => count::refusal(Some(service), reason),
            }
            return DROP;
        }
    }
    arriving::rewrite(ctx, state, PacketHook::Egress)
}
