//! ASKERS: peers that sent a datagram to a socket from the number of a NodePort (PO-23). What the socket sends back
//! is an answer, not a request to the Service; netfilter knows that from the connection it saw begin.
//!
//! Datagrams from other ports cost one lookup in a bitmap.

use aya_ebpf::{
    EbpfContext as _,
    helpers::{bpf_get_socket_cookie, bpf_ktime_get_ns},
    programs::SockAddrContext,
};
use proxy_common::{Address, AddressBits, Asker, Port, Tables as _, frontend::node_port_bit};

use crate::tables::{ASKERS, Maps, NODE_PORTS};

/// For how long an answer may come: as long as netfilter keeps a stream of datagrams, in nanoseconds.
const EXPECTED: u64 = 180 * 1_000_000_000;

/// Notes the sender of a datagram that is not a Service's answer.
#[inline(always)]
pub(super) fn note(ctx: &SockAddrContext, address: &Address, port: Port) {
    let (word, bit) = node_port_bit(port);
    let Some(ports) = NODE_PORTS.get_ptr(word) else { return };
    // SAFETY: the value of NODE_PORTS is one aligned word.
    let is_node_port = unsafe { ports.read_volatile() } & bit != 0;
    if is_node_port && (address.is_loopback() || Maps.address(address).has(AddressBits::NODE)) {
        note_asker(&key(ctx, address, port));
    }
}

#[inline(never)]
fn note_asker(key: &Asker) {
    // SAFETY: a helper without pointers.
    let now = unsafe { bpf_ktime_get_ns() };
    // A full LRU makes room; without the note the answer is taken for a request.
    let _ = ASKERS.insert(key, &now, 0);
}

/// Whether a datagram to a NodePort answers a peer that sent from there.
#[inline(always)]
pub(super) fn is_answer(ctx: &SockAddrContext, address: &Address, port: Port) -> bool {
    let Some(noted) = ASKERS.get_ptr(&key(ctx, address, port)) else { return false };
    // SAFETY: one aligned word of a map's value; then a helper without pointers.
    let (noted, now) = unsafe { (noted.read_volatile(), bpf_ktime_get_ns()) };
    now.wrapping_sub(noted) < EXPECTED
}

#[inline(always)]
fn key(ctx: &SockAddrContext, address: &Address, port: Port) -> Asker {
    // SAFETY: the helper takes the program's own context.
    let socket = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    Asker { socket, address: *address, port, padding: [0; 3] }
}
