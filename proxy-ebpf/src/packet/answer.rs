//! Answers a refused packet with a TCP reset or ICMP "port unreachable", through the device it came from. At most a
//! thousand a second, the kernel's own limit for ICMP errors.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_INVALIDATE_HASH, BPF_F_RECOMPUTE_CSUM},
    helpers::{bpf_redirect, bpf_skb_change_tail},
    programs::TcContext,
};
use bytemuck::Pod;
use proxy_common::{
    Network, NodeEvent, Protocol,
    packet::{
        Read as _,
        answer::{self, UnreachableV6},
    },
};

use super::{
    DROP, ETHERNET, NONE,
    headers::{self, State},
    skb::Skb,
};
use crate::{count, tables::REFUSED_RATE};

/// Answers per second.
const RATE: u64 = 1000;

/// Answers a refused packet, which is consumed. `link` is the length of its link header. A step: see [`super`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn refuse_packet(skb: *mut __sk_buff, link: u32) -> i32 {
    let Some(State { network, begin, .. }) = headers::state() else { return DROP };
    let (ctx, answer) = (&TcContext::new(skb), &mut begin.answer);
    if link == ETHERNET {
        refuse::<ETHERNET>(ctx, network, answer)
    } else {
        refuse::<NONE>(ctx, network, answer)
    }
}

/// `room` has space for the longest answer.
#[inline(always)]
fn refuse<const LINK: u32>(ctx: &TcContext, network: &Network, room: &mut UnreachableV6) -> i32 {
    if !count::take(REFUSED_RATE.get_ptr_mut(0), RATE) {
        count::event(NodeEvent::UnansweredRefusal);
        return DROP;
    }
    let is_tcp = network.protocol == Protocol::Tcp as u8;
    if !is_tcp && network.protocol != Protocol::Udp as u8 {
        return DROP;
    }
    match (is_tcp, network.v6) {
        (true, false) => reset_v4::<LINK>(ctx, network),
        (true, true) => reset_v6::<LINK>(ctx, network),
        (false, false) => unreachable_v4::<LINK>(ctx, network),
        (false, true) => unreachable_v6::<LINK>(ctx, network, room),
    }
}

// Separate functions, so that only one of these answers is on the stack.

#[inline(never)]
fn reset_v4<const LINK: u32>(ctx: &TcContext, network: &Network) -> i32 {
    send::<LINK, _>(ctx, answer::reset_v4(&Skb(ctx), network))
}

#[inline(never)]
fn reset_v6<const LINK: u32>(ctx: &TcContext, network: &Network) -> i32 {
    send::<LINK, _>(ctx, answer::reset_v6(&Skb(ctx), network))
}

#[inline(never)]
fn unreachable_v4<const LINK: u32>(ctx: &TcContext, network: &Network) -> i32 {
    send::<LINK, _>(ctx, answer::unreachable_v4(&Skb(ctx), network))
}

#[inline(never)]
fn unreachable_v6<const LINK: u32>(ctx: &TcContext, network: &Network, answer: &mut UnreachableV6) -> i32 {
    if !answer::unreachable_v6(&Skb(ctx), network, answer) {
        return DROP;
    }
    match try_send::<LINK, _>(ctx, answer) {
        Some(action) => action,
        None => DROP,
    }
}

/// Turns the packet into the answer, and sends it back.
#[inline(always)]
fn send<const LINK: u32, T: Pod>(ctx: &TcContext, answer: Option<T>) -> i32 {
    let Some(answer) = answer else { return DROP };
    match try_send::<LINK, T>(ctx, &answer) {
        Some(action) => action,
        None => DROP,
    }
}

#[inline(always)]
fn try_send<const LINK: u32, T: Pod>(ctx: &TcContext, answer: &T) -> Option<i32> {
    let mut skb = Skb(ctx);
    let length = LINK + size_of::<T>() as u32;
    // SAFETY: the helper takes the program's own context.
    if unsafe { bpf_skb_change_tail(ctx.skb.skb, length, 0) } != 0 {
        return None;
    }
    let flags = u64::from(BPF_F_RECOMPUTE_CSUM | BPF_F_INVALIDATE_HASH);
    skb.store_with(LINK, answer, flags)?;
    if LINK == ETHERNET {
        let [to, from]: [[u16; 3]; 2] = skb.load(0)?;
        skb.store_with(0, &[from, to], flags)?;
    }
    // SAFETY: the helper takes no pointers.
    Some(unsafe { bpf_redirect(skb.device(), 0) } as i32)
}
