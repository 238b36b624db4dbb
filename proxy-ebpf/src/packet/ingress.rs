//! Ingress rewrites destinations: of a packet to a frontend to an endpoint, of an answer to a SNAT source to the
//! client.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_INGRESS},
    helpers::{bpf_get_prandom_u32, bpf_ktime_get_ns, bpf_redirect},
    programs::TcContext,
};
use proxy_common::{
    Address, Client, Decision, Endpoint, FrontendKey, FrontendKind, Happening, Interface, NodeEvent,
    PacketHook, Protocol, Reason, RefusedPair, Scope, Tables, Tuple,
    connection::{
        Begun, Clock, Draft, Flows as _, Noted, RecordId, Request, answered, asked, find, find_by_source,
        finish, give_port, read_source, start,
    },
    select::{Resolution, choose, resolve},
};

use super::{
    DROP, ETHERNET, PASS, answer,
    clock::clock,
    errors,
    forward::{self, Towards},
    fragments, give_ended_on, give_on,
    headers::{self, Beginning, Kind, State},
    masquerade, outgoing,
    skb::{Held, Receiver, Skb},
};
use crate::{
    config, count, events,
    tables::{INTERFACES, Maps},
};

#[inline(always)]
pub(super) fn ingress<const LINK: u32>(ctx: &TcContext) -> i32 {
    let skb = Skb(ctx);
    // The stack handles or drops broadcast and multicast.
    let receiver = skb.receiver();
    if matches!(receiver, Receiver::All) {
        return PASS;
    }
    let Some(state) = headers::state() else { return PASS };
    let kind = headers::read::<LINK>(&skb, PacketHook::Ingress, state);
    if matches!(kind, Kind::Other) || !Maps::may_be_ours(&state.network.destination) {
        return PASS;
    }
    // Also packets to other hosts. But at the port of a bridge, those to the node have the bridge's address.
    if matches!(receiver, Receiver::Other) && !leads_to_pod(skb.device()) {
        return PASS;
    }
    match kind {
        Kind::Other => return PASS,
        Kind::Control => {
            let action = errors::error_at_ingress(ctx.skb.skb);
            if action != errors::WITHOUT_RECORD {
                return action;
            }
            give_on::<LINK>(ctx, PacketHook::Ingress);
            return PASS;
        }
        Kind::Late => return fragments::late::<LINK>(ctx, state),
        Kind::Packet => {}
    }
    let action = translate::<LINK>(ctx, state);
    // After the datagram's record exists: later fragments look it up.
    fragments::first(state);
    action
}

#[inline(always)]
fn leads_to_pod(device: u32) -> bool {
    let Some(interface) = INTERFACES.get_ptr(&device) else { return false };
    // SAFETY: the element lives as long as the program runs.
    unsafe { (*interface).flags & Interface::INSIDE != 0 }
}

/// Translates a packet that belongs to a connection or begins one.
#[inline(always)]
fn translate<const LINK: u32>(ctx: &TcContext, state: &mut State) -> i32 {
    let clock = clock(&mut state.seconds);
    if Maps::has_owners(state.tuple.destination_port) {
        let id = RecordId(find_source());
        if id.is_some() {
            give_ended_on(ctx, state, PacketHook::Ingress.place(LINK == ETHERNET));
            return answer::<LINK>(ctx, state, id, clock);
        }
    }
    let id = find::<Request>(&Maps, &state.tuple, &mut state.ends);
    if id.is_some() {
        let State { transport, ends, .. } = state;
        match asked(&Maps, id, ends, transport, clock, Skb(ctx).device()) {
            Noted::Follow => return request::<LINK>(ctx, state, id),
            Noted::Gone => return PASS,
            Noted::Anew => Maps.free(id, state.ends.check),
        }
    }
    give_on::<LINK>(ctx, PacketHook::Ingress);
    if !state.transport.segment.begins() {
        return PASS;
    }
    first::<LINK>(ctx, state)
}

/// Finds the record of an answer to a SNAT source; returns a [`RecordId`]. A step: see [`super`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn find_source() -> u32 {
    let Some(State { tuple, owners, ends, origin, .. }) = headers::state() else { return RecordId::NONE.0 };
    find_by_source(&Maps, tuple, owners, ends, origin).0
}

/// A packet from the client of a connection.
#[inline(always)]
fn request<const LINK: u32>(ctx: &TcContext, state: &mut State, id: RecordId) -> i32 {
    if forward::is_wanted::<LINK>(&state.ends, &state.transport, Towards::Endpoint) {
        let action = forward::send_on_fast_path(ctx.skb.skb, id.0, Towards::Endpoint as u32);
        if action != PASS {
            return action;
        }
    }
    if state.ends.is_remapped() {
        let State { ends, origin, owners, .. } = state;
        if !read_source(&Maps, id, ends, origin, owners) {
            events::lost(ends, id.index(), NodeEvent::WithoutSource);
            return DROP;
        }
        return headers::remap(ctx.skb.skb, PacketHook::Ingress as u32);
    }
    let endpoint = state.ends.to();
    headers::rewrite(ctx, state, PacketHook::Ingress, endpoint)
}

/// An answer to a SNAT source.
#[inline(always)]
fn answer<const LINK: u32>(ctx: &TcContext, state: &mut State, id: RecordId, clock: Clock) -> i32 {
    let State { transport, ends, .. } = state;
    if !answered(&Maps, id, ends, transport, false, clock) {
        return PASS;
    }
    if forward::is_wanted::<LINK>(ends, transport, Towards::Client) {
        let action = forward::send_on_fast_path(ctx.skb.skb, id.0, Towards::Client as u32);
        if action != PASS {
            return action;
        }
    }
    let client = state.ends.inside(&state.origin);
    let action = headers::rewrite(ctx, state, PacketHook::Ingress, client);
    if action == PASS && LINK == ETHERNET && state.ends.is_local() {
        return begin_again(ctx);
    }
    action
}

/// Sends an answer through the device's own queue once more. If the endpoint is on a bridge, conntrack saw the
/// answer before this hook (`br_netfilter`), as a packet to the node. The second time it sees an answer to the
/// client.
#[inline(always)]
fn begin_again(ctx: &TcContext) -> i32 {
    let skb = Skb(ctx);
    // Only once: if the client has the address of the node, the packet may now match the SNAT source of another
    // connection.
    if skb.held().is_some() {
        return PASS;
    }
    skb.set_held(Held { since: 0, rounds: 0 });
    // SAFETY: the helper takes no pointers.
    unsafe { bpf_redirect(skb.device(), u64::from(BPF_F_INGRESS)) as i32 }
}

#[inline(always)]
fn first<const LINK: u32>(ctx: &TcContext, state: &mut State) -> i32 {
    let found = Choice::of(find_service(ctx.skb.skb));
    if found != Choice::Endpoint {
        return without_endpoint::<LINK>(ctx, found);
    }
    let drawn = Choice::of(draw_endpoint());
    if drawn != Choice::Endpoint {
        return without_endpoint::<LINK>(ctx, drawn);
    }
    let mut begun = begun(start_connection(ctx.skb.skb));
    if begun == Begun::Connection {
        begun = publish(ctx, state);
    }
    if begun != Begun::Connection {
        return without_endpoint::<LINK>(ctx, failed(begun, &state.tuple, state.begin.endpoint.service));
    }
    if state.begin.draft.ends.is_remapped() {
        (state.ends, state.origin) = (state.begin.draft.ends, state.begin.draft.origin);
        return headers::remap(ctx.skb.skb, PacketHook::Ingress as u32);
    }
    let Endpoint { address, port, .. } = state.begin.endpoint;
    headers::rewrite(ctx, state, PacketHook::Ingress, (address, port))
}

/// Handles a packet that gets no endpoint.
#[inline(always)]
fn without_endpoint<const LINK: u32>(ctx: &TcContext, choice: Choice) -> i32 {
    match choice {
        Choice::NotService => PASS,
        Choice::Answer => answer::refuse_packet(ctx.skb.skb, LINK),
        Choice::Drop | Choice::Endpoint => DROP,
    }
}

/// Starts the connection to the drawn endpoint; returns a [`Begun`]. A step: see [`super`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn start_connection(skb: *mut __sk_buff) -> u32 {
    match headers::state() {
        Some(state) => connect(&TcContext::new(skb), state) as u32,
        None => Begun::Busy as u32,
    }
}

#[inline(always)]
fn begun(code: u32) -> Begun {
    const CONNECTION: u32 = Begun::Connection as u32;
    const NO_ROOM: u32 = Begun::NoRoom as u32;
    const NO_PORT: u32 = Begun::NoPort as u32;
    const NO_ADDRESS: u32 = Begun::NoAddress as u32;
    match code {
        CONNECTION => Begun::Connection,
        NO_ROOM => Begun::NoRoom,
        NO_PORT => Begun::NoPort,
        NO_ADDRESS => Begun::NoAddress,
        _ => Begun::Busy,
    }
}

#[inline(always)]
fn connect(ctx: &TcContext, state: &mut State) -> Begun {
    let clock = clock(&mut state.seconds);
    let flags = masquerade::flags(ctx, state);
    let State { tuple, begin: Beginning { draft, endpoint, .. }, .. } = state;
    draft.clock = clock;
    draft.ports = Maps::drawn_ports(config::ports());
    // SAFETY: the helper takes no pointers.
    draft.random = unsafe { bpf_get_prandom_u32() };
    draft.set(tuple, endpoint, flags, Skb(ctx).device());
    if draft.ends.is_masqueraded() && !masquerade::address(ctx, state) {
        return Begun::NoAddress;
    }
    start(&Maps, &mut state.begin.draft)
}

/// Gives the started connection a source port, and publishes it.
#[inline(always)]
fn publish(ctx: &TcContext, state: &mut State) -> Begun {
    let Beginning { draft, endpoint, remembered, .. } = &mut state.begin;
    let try_port = |_: &mut Draft, rival| masquerade::try_source_port(ctx.skb.skb, rival as u32) != 0;
    let has_port = !draft.ends.has_source_port() || give_port(draft, try_port);
    let begun = finish(&Maps, draft, has_port);
    if begun == Begun::Connection {
        count::connection(endpoint.service, *remembered != 0);
        events::flow(Happening::Began, draft.record_id().index());
    }
    begun
}

/// Counts a connection that could not begin, and returns whether to answer its client.
#[inline(always)]
fn failed(begun: Begun, tuple: &Tuple, service: u32) -> Choice {
    match begun {
        Begun::NoRoom => refuse(tuple, RefusedPair::NO_SERVICE, Reason::FlowTableFull),
        Begun::NoPort => refuse(tuple, service, Reason::SourcePortsExhausted),
        Begun::NoAddress => refuse(tuple, service, Reason::NoSourceAddress),
        // The client retransmits.
        Begun::Busy | Begun::Connection => Choice::Drop,
    }
}

/// The verdict on a packet without a record.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
enum Choice {
    /// It is not for a Service.
    NotService,
    /// It gets an endpoint.
    Endpoint,
    /// It is dropped silently.
    Drop,
    /// It is refused, and its sender gets an answer.
    Answer,
}

impl Choice {
    /// The verdict that a step returned.
    #[inline(always)]
    const fn of(code: u32) -> Self {
        const ENDPOINT: u32 = Choice::Endpoint as u32;
        const DROP: u32 = Choice::Drop as u32;
        const ANSWER: u32 = Choice::Answer as u32;
        match code {
            ENDPOINT => Self::Endpoint,
            DROP => Self::Drop,
            ANSWER => Self::Answer,
            _ => Self::NotService,
        }
    }
}

/// Finds the Service of a packet; returns a [`Choice`]. A step: see [`super`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn find_service(skb: *mut __sk_buff) -> u32 {
    match headers::state() {
        Some(state) => service(&TcContext::new(skb), state) as u32,
        None => Choice::NotService as u32,
    }
}

#[inline(always)]
fn service(ctx: &TcContext, state: &mut State) -> Choice {
    let State { tuple, seconds, begin, .. } = state;
    let destination = FrontendKey::new(tuple.destination, tuple.destination_port, tuple.protocol);
    match resolve(&Maps, &destination, &PacketClient { source: &tuple.source, device: 0 }) {
        Resolution::NotService => Choice::NotService,
        Resolution::UnknownPort => refuse(tuple, RefusedPair::NO_SERVICE, Reason::UnknownPort),
        Resolution::Service(found) => {
            let Some(interface) = INTERFACES.get_ptr(&Skb(ctx).device()) else {
                // The programs of other devices, by which the answer may come, are not all attached yet.
                return Choice::NotService;
            };
            begin.frontend = found;
            // SAFETY: the element lives as long as the program runs.
            begin.device = unsafe { (*interface).flags };
            let at_node = found.kind() == FrontendKind::NodePort as u8;
            if tuple.protocol == Protocol::Udp as u8
                && outgoing::is_expected(ctx, tuple, begin.draft.scratch(), clock(seconds).seconds, at_node)
            {
                return Choice::NotService;
            }
            Choice::Endpoint
        }
    }
}

/// Draws an endpoint; returns a [`Choice`]. A step: see [`super`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn draw_endpoint() -> u32 {
    match headers::state() {
        Some(state) => draw(state) as u32,
        None => Choice::NotService as u32,
    }
}

#[inline(always)]
fn draw(state: &mut State) -> Choice {
    let State { tuple, begin, .. } = state;
    // SAFETY: the helpers take no pointers.
    let (clock, random) = (|| unsafe { bpf_ktime_get_ns() }, || unsafe { bpf_get_prandom_u32() });
    let client = PacketClient { source: &tuple.source, device: begin.device };
    match choose(&Maps, &tuple.destination, begin.frontend, &client, clock, random) {
        Decision::NotService => Choice::NotService,
        Decision::Refuse { reason, .. } => refuse(tuple, begin.frontend.service, reason),
        Decision::Forward(forward) => {
            begin.endpoint = forward.endpoint;
            begin.remembered = u32::from(forward.remembered);
            Choice::Endpoint
        }
    }
}

/// Counts a refusal, and returns whether to answer it.
#[inline(always)]
fn refuse(tuple: &Tuple, service: u32, reason: Reason) -> Choice {
    let frontend = FrontendKey::new(tuple.destination, tuple.destination_port, tuple.protocol);
    events::refused_packet(&tuple.source, &frontend, service, reason);
    if reason.is_answered() { Choice::Answer } else { Choice::Drop }
}

struct PacketClient<'a> {
    source: &'a Address,
    /// Flags of the device at which its packet came in.
    device: u32,
}

impl Client for PacketClient<'_> {
    #[inline(always)]
    fn identity(&self) -> Address {
        *self.source
    }

    #[inline(always)]
    fn is_node(&self) -> bool {
        // A packet that comes in by a device never reaches the loopback of the node, whatever its addresses.
        false
    }

    #[inline(always)]
    fn scope(&self) -> Scope {
        if self.device & Interface::INSIDE != 0 { Scope::Inside } else { Scope::Outside }
    }

    #[inline(always)]
    fn source(&self, _: &impl Tables, _: &Address) -> Option<Address> {
        Some(*self.source)
    }
}
