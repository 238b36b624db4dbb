//! Answers that only look like requests (PO-23): datagrams that answer what the node sent from the number of a
//! NodePort. netfilter can tell them apart because it translates only the first packet of a connection.
//!
//! TCP needs none of this, since an answer is never a SYN. For UDP the program looks up the node's own sockets;
//! datagrams of others (pods that a CNI masquerades) are noted as they leave, if they come from a NodePort's number.
//! All other datagrams cost one lookup in a bitmap.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{BPF_F_CURRENT_NETNS, bpf_sock_tuple},
    helpers::{bpf_sk_lookup_tcp, bpf_sk_lookup_udp, bpf_sk_release},
    programs::TcContext,
};
use proxy_common::{Address, Port, Protocol, Tuple, connection::EXPECTED, frontend::node_port_bit};

use super::{clock::clock, headers::State};
use crate::tables::{NODE_PORTS, OUTGOING};

/// Notes an outgoing datagram without a record.
#[inline(always)]
pub(super) fn note(state: &mut State) {
    let State { seconds, tuple, .. } = state;
    if tuple.protocol != Protocol::Udp as u8 {
        return;
    }
    let (word, bit) = node_port_bit(tuple.source_port);
    let Some(ports) = NODE_PORTS.get_ptr(word) else { return };
    // SAFETY: the value of NODE_PORTS is one aligned word.
    if unsafe { ports.read_volatile() } & bit != 0 {
        note_tuple(tuple, clock(seconds).seconds);
    }
}

#[inline(never)]
fn note_tuple(tuple: &Tuple, seconds: u32) {
    let now = u64::from(seconds);
    if let Some(known) = OUTGOING.get_ptr_mut(tuple) {
        // SAFETY: one aligned word of a map's value. If the LRU has reused the element, the other flow's note
        // lasts longer.
        unsafe { known.write_volatile(now) };
        return;
    }
    // A full LRU makes room. Without the note, an answer that arrives before the next packet is taken for a
    // request.
    let _ = OUTGOING.insert(tuple, &now, 0);
}

/// Whether a datagram to a Service is an answer rather than a request, or belongs to an exchange of kube-proxy's, which
/// the agent notes. `at_node`: to the node's own address, where a socket may expect it.
#[inline(never)]
pub(super) fn is_expected(
    ctx: &TcContext,
    packet: &Tuple,
    scratch: &mut Tuple,
    seconds: u32,
    at_node: bool,
) -> bool {
    *scratch = packet.reversed();
    if let Some(noted) = OUTGOING.get_ptr(scratch) {
        // SAFETY: one aligned word of a map's value.
        let noted = unsafe { noted.read_volatile() };
        if u64::from(seconds).saturating_sub(noted) <= EXPECTED {
            return true;
        }
    }
    at_node && has_socket(ctx, packet.protocol, packet.from(), packet.to())
}

/// Whether a socket of the node would receive a datagram from `remote` to `local`.
#[inline(never)]
pub(super) fn has_socket(
    ctx: &TcContext,
    protocol: u8,
    remote: (Address, Port),
    local: (Address, Port),
) -> bool {
    // SAFETY: the tuple consists of plain numbers, of which the helper reads those of the family; a socket that it
    // returns is released.
    unsafe {
        let mut tuple: bpf_sock_tuple = core::mem::zeroed();
        let (remote_port, local_port) = (remote.1.to_network(), local.1.to_network());
        let size = if remote.0.is_v4() {
            let ([.., source], [.., destination]) = (remote.0.words(), local.0.words());
            tuple.__bindgen_anon_1.ipv4.saddr = source;
            tuple.__bindgen_anon_1.ipv4.daddr = destination;
            tuple.__bindgen_anon_1.ipv4.sport = remote_port;
            tuple.__bindgen_anon_1.ipv4.dport = local_port;
            size_of_val(&tuple.__bindgen_anon_1.ipv4)
        } else {
            tuple.__bindgen_anon_1.ipv6.saddr = remote.0.words();
            tuple.__bindgen_anon_1.ipv6.daddr = local.0.words();
            tuple.__bindgen_anon_1.ipv6.sport = remote_port;
            tuple.__bindgen_anon_1.ipv6.dport = local_port;
            size_of_val(&tuple.__bindgen_anon_1.ipv6)
        };
        let netns = i64::from(BPF_F_CURRENT_NETNS).cast_unsigned();
        let socket = if protocol == Protocol::Tcp as u8 {
            bpf_sk_lookup_tcp(ctx.as_ptr(), &raw mut tuple, size as u32, netns, 0)
        } else if protocol == Protocol::Udp as u8 {
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
