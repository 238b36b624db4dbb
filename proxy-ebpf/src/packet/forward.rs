//! Past the stack: what follows the first packet of a flow between a client and an endpoint elsewhere comes in and goes out
//! again with both of its ends translated, as soon as the routes and neighbours say where to.

use aya_ebpf::{
    EbpfContext as _,
    bindings::bpf_fib_lookup as Lookup,
    btf_maps::PerCpuArray,
    helpers::{bpf_fib_lookup, bpf_redirect, bpf_redirect_neigh},
    macros::btf_map,
    programs::TcContext,
};
use proxy_common::{
    Address, FlowKey, Port, Protocol,
    packet::{
        Fragment, Network,
        forward::{Head, HeadV4, HeadV6, send_on},
        transport::Tcp,
    },
};

use super::{DROP, ETHERNET, PASS, arriving::State, skb::Skb};
use crate::tables::INTERFACES;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// Bytes of a question to the routes.
const SIZE: i32 = size_of::<Lookup>().cast_signed() as i32;

/// Whether a packet is as nearly all are, which is what [`send`] knows to send.
#[inline(always)]
pub(super) fn is_plain(skb: &Skb<'_>, network: &Network) -> bool {
    network.is_plain() && matches!(network.fragment, Fragment::Whole) && !skb.is_tagged()
}

/// Sends the packet on, with the source that the flow beyond has and the destination of this one. [`PASS`]: nothing was
/// done, and it is the stack's: the routes do not say where to, or the packet is too long for the way, or too old.
#[inline(never)]
pub(super) fn send(ctx: &TcContext, state: &mut State) -> i32 {
    if state.network.v6 { send_as::<HeadV6>(ctx, state) } else { send_as::<HeadV4>(ctx, state) }
}

#[inline(always)]
fn send_as<H: Head>(ctx: &TcContext, state: &mut State) -> i32 {
    let skb = Skb(ctx);
    let Some(&head) = skb.head::<H>(0) else { return PASS };
    let mut head = head;
    if head.hops() <= 1 {
        return PASS;
    }
    let length = match skb.segment_size() {
        0 => head.length(),
        segment if state.network.protocol == Protocol::Tcp as u8 => {
            let Some(tcp) = skb.head::<Tcp>(ETHERNET + H::NETWORK) else { return PASS };
            H::NETWORK + tcp.length() + segment
        }
        segment => H::NETWORK + 8 + segment,
    };
    let Some((hop, fresh)) = next_hop(ctx, state, head.class(), length) else { return PASS };
    let State { network, transport, flow, beyond, .. } = state;
    let (source, destination) = ((beyond.address, beyond.port), (flow.address, flow.port));
    let packet = (&*network, &*transport);
    match send_on(&mut Skb(ctx), &mut head, packet, source, destination, [hop.to, hop.from]) {
        Some(()) => {
            skb.set_sent_on();
            // Only the kernel's own way to a neighbour asks now and then whether it is still there.
            // SAFETY: helpers without pointers, but for one that may be null.
            let action = unsafe {
                if fresh {
                    bpf_redirect_neigh(hop.device, core::ptr::null_mut(), 0, 0)
                } else {
                    bpf_redirect(hop.device, 0)
                }
            };
            action as i32
        }
        None => DROP,
    }
}

/// Where the packets of a flow go.
struct NextHop {
    /// The flow's, as egress sees it.
    key: FlowKey,
    /// When the routes said so.
    jiffies: u64,
    /// What kind of service the packet asked for, which routes may depend on.
    class: [u8; 4],
    /// The device.
    device: u32,
    /// Bytes of the packet that it was asked for: a shorter one goes the same way.
    length: u32,
    /// The neighbour.
    to: [u16; 3],
    /// The device's own address.
    from: [u16; 3],
}

const HOPS: usize = 256;
const WORDS: usize = size_of::<NextHop>().div_ceil(8);

/// Next hops, for a tick of the kernel's clock: asking took a quarter of the time that a packet takes here.
#[btf_map]
static NEXT_HOPS: PerCpuArray<[u64; WORDS], HOPS> = PerCpuArray::new();

/// Where a packet goes, as the stack would find it for what ingress makes of the packet, and whether that was asked just
/// now; nothing where the stack has to see to it.
#[inline(always)]
fn next_hop<'a>(
    ctx: &TcContext,
    state: &mut State,
    class: [u8; 4],
    length: u32,
) -> Option<(&'a NextHop, bool)> {
    let State { network, transport, flow, next, lookup, seconds, .. } = state;
    let index = u32::from(next.source_port.number ^ next.destination_port.number) % HOPS as u32;
    let hop = NEXT_HOPS.get_ptr_mut(index)?;
    // SAFETY: as long and as aligned as a next hop, and nobody else's while the program runs; any bytes are one.
    let hop = unsafe { &mut *hop.cast::<NextHop>() };
    if hop.jiffies == seconds.jiffies && hop.length >= length && hop.class == class && hop.key.is(next) {
        return Some((hop, false));
    }
    if length > u16::MAX.into() {
        return None;
    }
    ask(lookup, network, (transport.source, flow.port), &flow.address, class, length);
    lookup.ifindex = Skb(ctx).device();
    // SAFETY: the helper takes the program's own context, and writes to a question of this length.
    if unsafe { bpf_fib_lookup(ctx.as_ptr(), lookup, SIZE, 0) } != 0 {
        return None;
    }
    let interface = INTERFACES.get_ptr(&lookup.ifindex)?;
    // SAFETY: the element lives as long as the program runs.
    if unsafe { (*interface).longest } < length {
        return None;
    }
    let (to, from): ([u16; 3], _) = (bytemuck::must_cast(lookup.dmac), bytemuck::must_cast(lookup.smac));
    if to[0] | to[1] | to[2] == 0 {
        // Kernels before 6.3 tell of neighbours that do not answer.
        return None;
    }
    *hop = NextHop { key: *next, jiffies: seconds.jiffies, class, device: lookup.ifindex, length, to, from };
    Some((hop, true))
}

/// Puts the question together: where a packet goes.
#[inline(always)]
fn ask(
    lookup: &mut Lookup,
    network: &Network,
    ports: (Port, Port),
    destination: &Address,
    class: [u8; 4],
    length: u32,
) {
    lookup.l4_protocol = network.protocol;
    (lookup.sport, lookup.dport) = (ports.0.to_network(), ports.1.to_network());
    lookup.__bindgen_anon_1.tot_len = length as u16;
    lookup.__bindgen_anon_2.flowinfo = u32::from_ne_bytes(class);
    if network.v6 {
        lookup.family = AF_INET6;
        lookup.__bindgen_anon_3.ipv6_src = network.source.words();
        lookup.__bindgen_anon_4.ipv6_dst = destination.words();
    } else {
        let ([.., source], [.., destination]) = (network.source.words(), destination.words());
        lookup.family = AF_INET;
        lookup.__bindgen_anon_3.ipv4_src = source;
        lookup.__bindgen_anon_4.ipv4_dst = destination;
    }
}
