//! Ingress: destinations. A packet to a frontend goes to an endpoint; a reply to a masqueraded source goes to its client.

use aya_ebpf::{
    helpers::{bpf_get_prandom_u32, bpf_ktime_get_ns},
    programs::TcContext,
};
use proxy_common::{
    Address, Client, Decision, Endpoint, FlowKey, Frontend, FrontendKey, PacketHook, Reason, Scope, Tables,
    Total,
    nat::{self, Begun},
    select::{Resolution, choose, resolve},
};

use super::{
    DROP, ETHERNET, PASS, answer,
    arriving::{self, Arriving, State},
    errors,
    flows::clock,
    forward,
    skb::Skb,
};
use crate::{config, count, tables::Maps};

#[inline(always)]
pub(super) fn ingress<const LINK: u32>(ctx: &TcContext) -> i32 {
    let skb = Skb(ctx);
    // What is meant for another host, or for many, is not ours: the stack sees to it, or drops it.
    if !skb.is_for_us() {
        return PASS;
    }
    let Some(state) = arriving::state() else { return PASS };
    match arriving::read::<LINK>(&skb, PacketHook::Ingress, state) {
        Arriving::Other => return PASS,
        Arriving::Control => {
            return errors::translate(ctx, &state.network, &mut state.key, PacketHook::Ingress);
        }
        Arriving::Late => {
            if !Maps.address(&state.network.destination).is_none() {
                count::event(Total::LateFragment);
            }
            return PASS;
        }
        Arriving::Packet => {}
    }
    let State { network, transport, seconds, key, flow, next, beyond, frontend, endpoint, .. } = state;
    let clock = clock(seconds);
    if nat::follow(&Maps, key, transport.segment, clock, flow) {
        if LINK == ETHERNET
            && config::past_stack()
            && forward::is_plain(&skb, network)
            && nat::pass_stack(&Maps, key, flow, transport.segment, clock, next, beyond)
        {
            let action = forward::send(ctx, state);
            if action != PASS {
                return action;
            }
        }
        return arriving::rewrite(ctx, state, PacketHook::Ingress);
    }
    if !transport.segment.may_be_first() {
        return PASS;
    }
    let mut choice = find(key, frontend);
    if choice == Choice::Endpoint {
        choice = draw(key, *frontend, endpoint);
    }
    match choice {
        Choice::NotService => return PASS,
        Choice::Drop => return DROP,
        Choice::Answer => return answer::refuse::<LINK>(ctx, network, &mut state.answer),
        Choice::Endpoint => {}
    }
    match nat::begin(&Maps, key, endpoint, clock, flow) {
        Begun::Flow => {}
        Begun::Colliding => {
            // The client has one of these at a time: told so, it takes another port.
            count::event(Total::CollidingFlow);
            return answer::refuse::<LINK>(ctx, network, &mut state.answer);
        }
        Begun::NoRoom => {
            count::node_refusal(Reason::FlowTableFull);
            return answer::refuse::<LINK>(ctx, network, &mut state.answer);
        }
    }
    arriving::rewrite(ctx, state, PacketHook::Ingress)
}

/// What becomes of a packet without a flow.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
enum Choice {
    /// It is for none of our addresses.
    NotService,
    /// It gets an endpoint.
    Endpoint,
    /// It is refused without a word.
    Drop,
    /// It is refused, and its sender is told.
    Answer,
}

/// Finds the Service that a packet is for.
#[inline(never)]
fn find(key: &FlowKey, frontend: &mut Frontend) -> Choice {
    let destination = FrontendKey::new(key.destination, key.destination_port, key.protocol);
    match resolve(&Maps, &destination, &PacketClient { source: &key.source }) {
        Resolution::NotService => Choice::NotService,
        Resolution::UnknownPort => refuse(None, Reason::UnknownPort),
        Resolution::Service(found) => {
            *frontend = found;
            Choice::Endpoint
        }
    }
}

/// Asks for an endpoint.
#[inline(never)]
fn draw(key: &FlowKey, frontend: Frontend, endpoint: &mut Endpoint) -> Choice {
    // SAFETY: helpers without pointers.
    let (clock, random) = (|| unsafe { bpf_ktime_get_ns() }, || unsafe { bpf_get_prandom_u32() });
    let client = PacketClient { source: &key.source };
    match choose(&Maps, &key.destination, frontend, &client, clock, random) {
        Decision::NotService => Choice::NotService,
        Decision::Refuse { service, reason } => refuse(service, reason),
        Decision::Forward(forward) => {
            *endpoint = forward.endpoint;
            count::connection(forward.endpoint.service, forward.remembered);
            Choice::Endpoint
        }
    }
}

/// Counts a refusal, and says whether it is told.
#[inline(always)]
fn refuse(service: Option<u32>, reason: Reason) -> Choice {
    count::refusal(service, reason);
    match reason {
        Reason::NoEndpoints | Reason::UnknownPort => Choice::Answer,
        // Whoever asks a node that has no endpoint of its own, or may not ask, is to hear nothing, as if nobody were
        // there (PO-3, ST-1).
        _ => Choice::Drop,
    }
}

/// The client that a packet comes from.
struct PacketClient<'a> {
    source: &'a Address,
}

impl Client for PacketClient<'_> {
    #[inline(always)]
    fn identity(&self) -> Address {
        *self.source
    }

    #[inline(always)]
    fn is_node(&self) -> bool {
        // What comes from a wire is for nobody's loopback, whatever it says.
        false
    }

    #[inline(always)]
    fn scope(&self) -> Scope {
        Scope::Outside
    }

    #[inline(always)]
    fn source(&self, _: &impl Tables, _: &Address) -> Option<Address> {
        Some(*self.source)
    }
}
