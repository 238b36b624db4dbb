//! What a flow is masqueraded with when it leaves the node: the address that the route to its endpoint prefers, and a
//! port that nobody else has towards that endpoint.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{BPF_F_CURRENT_NETNS, BPF_FIB_LOOKUP_OUTPUT, bpf_fib_lookup as Lookup, bpf_sock_tuple},
    helpers::{bpf_fib_lookup, bpf_get_prandom_u32, bpf_sk_lookup_tcp, bpf_sk_lookup_udp, bpf_sk_release},
    programs::TcContext,
};
use proxy_common::{
    Address, Flow, FlowKey, Protocol, Reason,
    nat::{Clock, SourcePorts, masquerade},
};

use super::skb::Skb;
use crate::{
    config,
    tables::{INTERFACES, Maps},
};

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// `BPF_FIB_LOOKUP_SKIP_NEIGH` (6.3).
const SKIP_NEIGHBOUR: u32 = 1 << 2;
/// `BPF_FIB_LOOKUP_SRC` (6.7).
const SOURCE: u32 = 1 << 4;

/// Bytes of a question to the routes.
const SIZE: i32 = size_of::<Lookup>().cast_signed() as i32;

/// Gives a pending flow its source.
#[inline(always)]
pub(super) fn give(ctx: &TcContext, key: &FlowKey, flow: &mut Flow, clock: Clock) -> Result<(), Reason> {
    let address = address(ctx, key);
    if address.is_unspecified() {
        return Err(Reason::NoSourceAddress);
    }
    let (first, count) = config::source_ports();
    // SAFETY: a helper without pointers.
    let random = unsafe { bpf_get_prandom_u32() };
    let is_taken = |candidate: &Flow| has_socket(ctx, key, candidate);
    masquerade(&Maps, key, flow, &address, SourcePorts { first, count }, random, clock, is_taken)
}

/// The address; the "any" address where there is none.
#[inline(always)]
fn address(ctx: &TcContext, key: &FlowKey) -> Address {
    let device = Skb(ctx).device();
    if config::has_fib_source() {
        let found = preferred(ctx, key, device);
        if !found.is_unspecified() {
            return found;
        }
    }
    match INTERFACES.get_ptr(&device) {
        // SAFETY: the element lives as long as the program runs. Only a device that is being renumbered could show
        // half of an address.
        Some(found) => unsafe { if key.destination.is_v4() { (*found).v4 } else { (*found).v6 } },
        None => Address::ANY_V6,
    }
}

/// What the route to the endpoint prefers.
#[inline(never)]
fn preferred(ctx: &TcContext, key: &FlowKey, device: u32) -> Address {
    // SAFETY: the structure consists of plain numbers, and the helper takes the program's own context.
    unsafe {
        let mut lookup: Lookup = core::mem::zeroed();
        lookup.ifindex = device;
        lookup.l4_protocol = key.protocol;
        let [a, b, c, d] = key.destination.words();
        if key.destination.is_v4() {
            lookup.family = AF_INET;
            lookup.__bindgen_anon_4.ipv4_dst = d;
        } else {
            lookup.family = AF_INET6;
            lookup.__bindgen_anon_4.ipv6_dst = [a, b, c, d];
        }
        let flags = BPF_FIB_LOOKUP_OUTPUT | SKIP_NEIGHBOUR | SOURCE;
        if bpf_fib_lookup(ctx.as_ptr(), &raw mut lookup, SIZE, flags) != 0 {
            return Address::ANY_V6;
        }
        if key.destination.is_v4() {
            Address::from_words([0, 0, 0xffff_u32.to_be(), lookup.__bindgen_anon_3.ipv4_src])
        } else {
            Address::from_words(lookup.__bindgen_anon_3.ipv6_src)
        }
    }
}

/// Whether a socket of the node would get the replies to this source.
#[inline(never)]
fn has_socket(ctx: &TcContext, key: &FlowKey, candidate: &Flow) -> bool {
    // SAFETY: the tuple consists of plain numbers, of which the helper reads those of the family; a socket that it
    // returns is given back.
    unsafe {
        let mut tuple: bpf_sock_tuple = core::mem::zeroed();
        let (remote, local) = (key.destination_port.to_network(), candidate.port.to_network());
        let size = if key.destination.is_v4() {
            let ([.., source], [.., destination]) = (key.destination.words(), candidate.address.words());
            tuple.__bindgen_anon_1.ipv4.saddr = source;
            tuple.__bindgen_anon_1.ipv4.daddr = destination;
            tuple.__bindgen_anon_1.ipv4.sport = remote;
            tuple.__bindgen_anon_1.ipv4.dport = local;
            size_of_val(&tuple.__bindgen_anon_1.ipv4)
        } else {
            tuple.__bindgen_anon_1.ipv6.saddr = key.destination.words();
            tuple.__bindgen_anon_1.ipv6.daddr = candidate.address.words();
            tuple.__bindgen_anon_1.ipv6.sport = remote;
            tuple.__bindgen_anon_1.ipv6.dport = local;
            size_of_val(&tuple.__bindgen_anon_1.ipv6)
        };
        let netns = i64::from(BPF_F_CURRENT_NETNS).cast_unsigned();
        let socket = if key.protocol == Protocol::Tcp as u8 {
            bpf_sk_lookup_tcp(ctx.as_ptr(), &raw mut tuple, size as u32, netns, 0)
        } else if key.protocol == Protocol::Udp as u8 {
            bpf_sk_lookup_udp(ctx.as_ptr(), &raw mut tuple, size as u32, netns, 0)
        } else {
            return false;
        };
        if socket.is_null() {
            return false;
        }
        bpf_sk_release(socket.cast());
        true
    }
}
