//! PEERS: the peer of a TCP socket, in an array element selected by the socket's cookie and released with the socket.
//!
//! Socket storage is the fallback when another living socket holds the element. It allocates memory, which costs
//! about 4 % of a connection; the array costs less than 1 %.

use aya_ebpf::{
    EbpfContext,
    helpers::{bpf_get_socket_cookie, bpf_spin_lock, bpf_spin_unlock},
    macros::cgroup_sock,
    programs::SockContext,
};
use proxy_common::{
    Address, Port,
    peer::{Peer, index},
};

use super::context::ALLOW;
use crate::tables::PEERS;

/// A socket ends: its element is free. Runs for every socket of the node.
#[cgroup_sock(sock_release)]
pub(crate) fn release(ctx: SockContext) -> i32 {
    vacate(&ctx);
    ALLOW
}

/// Records the destination that the socket named; `false` if another living socket holds the element.
#[inline(always)]
pub(super) fn occupy(ctx: &impl EbpfContext, frontend: &Address, port: Port) -> bool {
    let cookie = cookie(ctx);
    let Some(peer) = element(cookie) else {
        return false;
    };
    // SAFETY: an element of the map, which lives as long as the program runs. Whose it is is decided under
    // its lock; what else it holds is the owner's alone, and the kernel holds the owner's socket lock.
    unsafe {
        let lock = (&raw mut (*peer).lock).cast();
        bpf_spin_lock(lock);
        let owner = (&raw const (*peer).owner).read_volatile();
        let mine = owner == 0 || owner == cookie;
        if mine {
            (&raw mut (*peer).owner).write_volatile(cookie);
        }
        bpf_spin_unlock(lock);
        if mine {
            (*peer).frontend = *frontend;
            (*peer).port = port;
        }
        mine
    }
}

/// Forgets the socket's destination, if it has an element.
#[inline(always)]
pub(super) fn vacate(ctx: &impl EbpfContext) {
    let cookie = cookie(ctx);
    if let Some(peer) = element(cookie) {
        // SAFETY: as in `occupy`; an aligned word that only its owner makes 0.
        unsafe {
            let owner = &raw mut (*peer).owner;
            if owner.read_volatile() == cookie {
                owner.write_volatile(0);
            }
        }
    }
}

/// The destination that the socket named, if it has an element.
#[inline(always)]
pub(super) fn frontend(ctx: &impl EbpfContext) -> Option<(Address, Port)> {
    let cookie = cookie(ctx);
    let peer = element(cookie)?;
    // SAFETY: as in `occupy`.
    unsafe {
        if (&raw const (*peer).owner).read_volatile() == cookie {
            Some(((*peer).frontend, (*peer).port))
        } else {
            None
        }
    }
}

#[inline(always)]
fn element(cookie: u64) -> Option<*mut Peer> {
    PEERS.get_ptr_mut(index(cookie))
}

#[inline(always)]
fn cookie(ctx: &impl EbpfContext) -> u64 {
    // SAFETY: the helper takes the program's own context.
    unsafe { bpf_get_socket_cookie(ctx.as_ptr()) }
}
