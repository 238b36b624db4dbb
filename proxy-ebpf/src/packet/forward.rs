//! The fast path, past the stack: ingress translates both source and destination of packets between a client and
//! an endpoint on another node, looks up their route and forwards them.
//!
//! The client's first packet after the handshake decides once whether a TCP connection takes the fast path. So the
//! node's conntrack sees either the whole connection and its end, or only the handshake, which it forgets within a
//! minute (ST-12). A packet of a connection on the fast path stays on it, even with IP options, in fragments, with
//! a VLAN tag, or with an unknown neighbour, which the kernel then resolves. Only the stack can handle packets
//! that are too long or whose hop limit is used up, which it reports to the sender, and routes that encapsulate.
//! The program then notes the connection in STRAYS, and the agent removes its conntrack entry when the connection
//! ends.
//!
//! Datagrams may take either path at any time: conntrack forgets them by itself.

use aya_ebpf::{
    bindings::{
        __sk_buff, BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS,
        BPF_FIB_LKUP_RET_UNSUPP_LWT,
    },
    btf_maps::PerCpuArray,
    helpers::{bpf_redirect, bpf_redirect_neigh, bpf_skb_vlan_pop},
    macros::btf_map,
    programs::TcContext,
};
use proxy_common::{
    Address, NodeEvent, Port, Protocol, Tuple,
    connection::{Ends, Flows as _, RecordId, Seen, read_source},
    packet::{
        self, Fragment, Network, Transport,
        forward::{Head, HeadV4, HeadV6, send_on, take_hop},
        transport::Tcp,
    },
};

use super::{
    DROP, ETHERNET, PASS,
    clock::clock,
    headers::{self, State},
    routes,
    skb::Skb,
};
use crate::{
    config, events,
    tables::{INTERFACES, Maps, STRAYS},
};

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Towards {
    Endpoint = 0,
    Client = 1,
}

/// Whether a packet may take the fast path.
///
/// Never to endpoints on this node: the stack enforces their policy. Nor if the connection is remapped, which is rare. And
/// not before packets in both directions (for UDP: in this direction) left the stack as expected: the stack keeps new
/// connections, and those that it drops, encrypts, or masquerades in a way of its own.
#[inline(always)]
pub(super) fn is_wanted<const LINK: u32>(ends: &Ends, transport: &Transport, towards: Towards) -> bool {
    let Ends { seen, flags, .. } = ends;
    if LINK != ETHERNET || flags & (Ends::MASQUERADED | Ends::LOCAL | Ends::REMAPPED) != Ends::MASQUERADED {
        return false;
    }
    if ends.protocol != Protocol::Tcp as u8 {
        let bits = if matches!(towards, Towards::Endpoint) { seen.client } else { seen.endpoint };
        return config::fast_path() && bits & Seen::LEFT != 0;
    }
    match seen.route {
        Seen::FAST => !transport.segment.begins(),
        Seen::STACK => false,
        _ => matches!(towards, Towards::Endpoint) && seen.confirmed() && !transport.segment.begins(),
    }
}

/// Forwards a packet of the record `record_id`; `towards` is a [`Towards`]. [`PASS`]: nothing was done, and the
/// stack takes the packet. A step: see [`super`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn send_on_fast_path(skb: *mut __sk_buff, record_id: u32, towards: u32) -> i32 {
    let Some(state) = headers::state() else { return PASS };
    let towards = if towards == Towards::Client as u32 { Towards::Client } else { Towards::Endpoint };
    send(&TcContext::new(skb), state, RecordId(record_id), towards)
}

#[inline(always)]
fn send(ctx: &TcContext, state: &mut State, id: RecordId, towards: Towards) -> i32 {
    let is_tcp = state.ends.protocol == Protocol::Tcp as u8;
    let is_decided = is_tcp && state.ends.seen.route == Seen::FAST;
    if is_tcp && !is_decided {
        return decide(ctx, state, id);
    }
    if !prepare(state, id, towards) {
        // A late packet of an ended connection, whose source port now belongs to another connection.
        return DROP;
    }
    match try_send(ctx, state, towards, is_decided) {
        Sent::Action(action) => action,
        Sent::Stack if is_decided => {
            stray(state);
            PASS
        }
        Sent::Nowhere if is_decided => {
            events::lost(&state.ends, id.index(), NodeEvent::WithoutRoute);
            DROP
        }
        Sent::Stack | Sent::Nowhere => PASS,
    }
}

/// Decides the path of a TCP connection with the first packet of its client after the handshake.
#[inline(always)]
fn decide(ctx: &TcContext, state: &mut State, id: RecordId) -> i32 {
    let seen = state.ends.seen;
    if config::fast_path()
        && seen.client & seen.endpoint & Seen::LEFT != 0
        && prepare(state, id, Towards::Endpoint)
        && is_plain(&Skb(ctx), &state.network)
        && let Sent::Action(action) = try_send(ctx, state, Towards::Endpoint, false)
    {
        Maps.set_route(id, Seen::FAST);
        return action;
    }
    Maps.set_route(id, Seen::STACK);
    PASS
}

/// Reads the translation of a packet, and notes in `routed` where it goes. `false`: the connection has lost its
/// source.
#[inline(never)]
fn prepare(state: &mut State, id: RecordId, towards: Towards) -> bool {
    let State { network, transport, ends, origin, owners, routed, .. } = state;
    let destination = match towards {
        Towards::Client => ends.from(),
        Towards::Endpoint => {
            if !read_source(&Maps, id, ends, origin, owners) {
                return false;
            }
            ends.to()
        }
    };
    *routed = Tuple::new(network.protocol, (network.source, transport.source), destination);
    true
}

/// The source of a packet after translation.
#[inline(always)]
fn source(state: &State, towards: Towards) -> (Address, Port) {
    match towards {
        Towards::Client => state.ends.asked(),
        Towards::Endpoint => state.origin.masquerade(),
    }
}

/// The outcome of forwarding a packet.
enum Sent {
    /// It is sent out.
    Action(i32),
    /// Only the stack can handle it.
    Stack,
    /// It has no route.
    Nowhere,
}

/// Whether a packet is unfragmented, and without options, extension headers or a VLAN tag, as nearly all are.
#[inline(always)]
fn is_plain(skb: &Skb<'_>, network: &Network) -> bool {
    network.is_plain() && matches!(network.fragment, Fragment::Whole) && !skb.is_tagged()
}

/// `must`: the packet may not go to the stack, so it is sent even to an unknown neighbour, or by a device without
/// our programs.
#[inline(always)]
fn try_send(ctx: &TcContext, state: &mut State, towards: Towards, must: bool) -> Sent {
    let skb = ctx.skb.skb;
    let asked = towards as u32 | u32::from(must) << 1;
    let answer = match (is_plain(&Skb(ctx), &state.network), state.network.v6) {
        (true, true) => send_plain_v6(skb, asked),
        (true, false) => send_plain_v4(skb, asked),
        (false, _) if must => send_odd_packet(skb, asked),
        (false, _) => STACK,
    };
    match answer {
        STACK => Sent::Stack,
        NOWHERE => Sent::Nowhere,
        action => Sent::Action(action),
    }
}

/// Decodes the argument of a step: the direction, and `must`.
#[inline(always)]
const fn asked(bits: u32) -> (Towards, bool) {
    (if bits & 1 == Towards::Client as u32 { Towards::Client } else { Towards::Endpoint }, bits & 2 != 0)
}

/// A step: see [`super`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn send_plain_v4(skb: *mut __sk_buff, bits: u32) -> i32 {
    let (Some(state), (towards, must)) = (headers::state(), asked(bits)) else { return STACK };
    send_plain::<HeadV4>(&TcContext::new(skb), state, towards, must)
}

/// A step: see [`super`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn send_plain_v6(skb: *mut __sk_buff, bits: u32) -> i32 {
    let (Some(state), (towards, must)) = (headers::state(), asked(bits)) else { return STACK };
    send_plain::<HeadV6>(&TcContext::new(skb), state, towards, must)
}

/// A step: see [`super`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn send_odd_packet(skb: *mut __sk_buff, bits: u32) -> i32 {
    let (Some(state), (towards, _)) = (headers::state(), asked(bits)) else { return STACK };
    send_odd(&TcContext::new(skb), state, towards)
}

// Returned instead of an action.
const STACK: i32 = -1000;
const NOWHERE: i32 = -1001;

/// Forwards a packet with ordinary headers.
#[inline(always)]
fn send_plain<H: Head>(ctx: &TcContext, state: &mut State, towards: Towards, must: bool) -> i32 {
    let skb = Skb(ctx);
    let Some(&head) = skb.head::<H>(0) else { return STACK };
    let mut head = head;
    if head.hops() <= 1 {
        return STACK;
    }
    let length = match skb.segment_size() {
        0 => head.length(),
        segment if state.network.protocol == Protocol::Tcp as u8 => {
            let Some(tcp) = skb.head::<Tcp>(ETHERNET + H::NETWORK) else { return STACK };
            H::NETWORK + tcp.length() + segment
        }
        segment => H::NETWORK + 8 + segment,
    };
    let Some(hop) = hop_of(&state.routed) else { return STACK };
    let found = find_hop(ctx, state, hop, head.class(), length, must);
    if found < KNOWN {
        return found;
    }
    let (source, destination) = (source(state, towards), state.routed.to());
    let packet = (&state.network, &state.transport);
    if send_on(&mut Skb(ctx), &mut head, packet, source, destination, [hop.to, hop.from]).is_none() {
        return DROP;
    }
    skb.set_sent_on();
    // Only the kernel's own output to a neighbour checks now and then whether the neighbour is still there.
    // SAFETY: the helpers take no pointers, except one that may be null.
    let action = unsafe {
        if found == KNOWN {
            bpf_redirect(hop.device, 0)
        } else {
            bpf_redirect_neigh(hop.device, core::ptr::null_mut(), 0, 0)
        }
    };
    action as i32
}

/// Forwards a packet with options, extension headers or a tag, or a fragment, which costs more.
#[inline(always)]
fn send_odd(ctx: &TcContext, state: &mut State, towards: Towards) -> i32 {
    let mut skb = Skb(ctx);
    let State { network, lookup, routed, .. } = state;
    routes::ask(lookup, network, &network.source, &routed.destination);
    lookup.__bindgen_anon_1.tot_len = packet::forward::length(&skb, network).unwrap_or(u16::MAX);
    match routes::lookup(ctx, lookup, skb.device(), 0) {
        BPF_FIB_LKUP_RET_SUCCESS | BPF_FIB_LKUP_RET_NO_NEIGH => {}
        BPF_FIB_LKUP_RET_FRAG_NEEDED | BPF_FIB_LKUP_RET_UNSUPP_LWT => return STACK,
        _ => return NOWHERE,
    }
    if !packet::forward::has_hops(&skb, network) {
        return STACK;
    }
    if skb.is_tagged() {
        // SAFETY: the helper takes the program's own context.
        unsafe { bpf_skb_vlan_pop(ctx.skb.skb) };
    }
    let (new, destination) = (source(state, towards), state.routed.to());
    let State { network, transport, .. } = state;
    if packet::rewrite_both(&mut skb, network, transport, new, destination).is_none()
        || take_hop(&mut skb, network).is_none()
    {
        return DROP;
    }
    skb.set_sent_on();
    // SAFETY: the pointer may be null.
    unsafe { bpf_redirect_neigh(state.lookup.ifindex, core::ptr::null_mut(), 0, 0) as i32 }
}

/// Notes that conntrack may keep an entry of a fast-path connection.
#[inline(never)]
fn stray(state: &mut State) {
    let State { ends, routed, seconds, .. } = state;
    *routed = Tuple::new(ends.protocol, ends.from(), ends.to());
    // A full LRU makes room. Without a note, the conntrack entry lives until its own timeout.
    let _ = STRAYS.insert(&*routed, &clock(seconds).seconds.into(), 0);
}

/// The next hop of packets.
struct NextHop {
    /// The tuple of the packets, with the translated destination.
    packets: Tuple,
    /// Time of the lookup.
    jiffies: u64,
    /// Type of service or traffic class, on which routes may depend.
    class: [u8; 4],
    device: u32,
    /// Length of the packet in the lookup. A shorter one has the same next hop.
    length: u32,
    /// MAC address of the neighbour; arbitrary where the kernel has to resolve it.
    to: [u16; 3],
    /// MAC address of the device.
    from: [u16; 3],
}

const HOPS: usize = 256;
const WORDS: usize = size_of::<NextHop>().div_ceil(8);

/// Cached next hops, valid for a tick of the kernel's clock: the lookup took a quarter of the time of a packet
/// here.
#[btf_map]
static NEXT_HOPS: PerCpuArray<[u64; WORDS], HOPS> = PerCpuArray::new();

#[inline(always)]
fn hop_of<'a>(packets: &Tuple) -> Option<&'a mut NextHop> {
    let index = u32::from(packets.source_port.number ^ packets.destination_port.number) % HOPS as u32;
    let hop = NEXT_HOPS.get_ptr_mut(index)?;
    // SAFETY: the element has the size and alignment of a next hop, and nothing else uses it while the program
    // runs; any bytes are a valid next hop.
    Some(unsafe { &mut *hop.cast::<NextHop>() })
}

// Results of [`find_hop`], beside `STACK` and `NOWHERE`.
/// The next hop is cached, and its neighbour known.
const KNOWN: i32 = 0;
/// The kernel has to check or resolve the neighbour.
const NEIGHBOUR: i32 = 1;

/// Finds the next hop that the stack would choose for the packet after ingress, and stores it in `hop`.
#[inline(always)]
fn find_hop(
    ctx: &TcContext,
    state: &mut State,
    hop: &mut NextHop,
    class: [u8; 4],
    length: u32,
    must: bool,
) -> i32 {
    let State { network, lookup, routed, seconds, .. } = state;
    if hop.jiffies == seconds.jiffies && hop.length >= length && hop.class == class && hop.packets.is(routed)
    {
        return KNOWN;
    }
    if length > u16::MAX.into() {
        return STACK;
    }
    routes::ask(lookup, network, &network.source, &routed.destination);
    (lookup.sport, lookup.dport) = (routed.source_port.to_network(), routed.destination_port.to_network());
    lookup.__bindgen_anon_1.tot_len = length as u16;
    lookup.__bindgen_anon_2.flowinfo = u32::from_ne_bytes(class);
    let answer = routes::lookup(ctx, lookup, Skb(ctx).device(), 0);
    match answer {
        BPF_FIB_LKUP_RET_SUCCESS => {}
        BPF_FIB_LKUP_RET_NO_NEIGH if must => {}
        BPF_FIB_LKUP_RET_NO_NEIGH | BPF_FIB_LKUP_RET_FRAG_NEEDED | BPF_FIB_LKUP_RET_UNSUPP_LWT => {
            return STACK;
        }
        _ => return NOWHERE,
    }
    match INTERFACES.get_ptr(&lookup.ifindex) {
        Some(interface) => {
            // SAFETY: the element lives as long as the program runs.
            let longest = unsafe { (*interface).longest };
            // 0: the device has no Ethernet header, and needs a route with each packet.
            if longest < length && (longest != 0 || !must) {
                return STACK;
            }
        }
        None if !must => return STACK,
        None => {}
    }
    let (to, from): ([u16; 3], _) = (bytemuck::must_cast(lookup.dmac), bytemuck::must_cast(lookup.smac));
    // Kernels before 6.3 also return neighbours that do not answer.
    let is_neighbour_known = answer == BPF_FIB_LKUP_RET_SUCCESS && to[0] | to[1] | to[2] != 0;
    if !is_neighbour_known && !must {
        return STACK;
    }
    // While the kernel has to resolve the neighbour, the next packet repeats the lookup.
    let jiffies = if is_neighbour_known { seconds.jiffies } else { 0 };
    *hop = NextHop { packets: *routed, jiffies, class, device: lookup.ifindex, length, to, from };
    NEIGHBOUR
}
