//! PEERS: the frontend that a TCP socket connected to, in an array element selected by the socket's cookie.

use bytemuck::{Pod, Zeroable};

use crate::address::{Address, Port};

/// `struct bpf_spin_lock`: the kernel finds the lock in a map's value by the name of its type.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct bpf_spin_lock {
    /// The kernel's.
    pub val: u32,
}

/// An element of PEERS: the socket that holds it, and what it is connected to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct Peer {
    /// The socket's cookie; 0 in a free element. Taken under the lock, given back by its owner alone.
    pub owner: u64,
    /// The address that the process connected to.
    pub frontend: Address,
    /// The port that the process connected to.
    pub port: Port,
    /// Zero.
    pub padding: u16,
    /// Held while an element is taken.
    pub lock: bpf_spin_lock,
}

/// How many elements there are; a power of two. Cookies count up, so an element is met again only after as
/// many sockets, and then only if its first owner still lives.
pub const PEERS: u32 = 1 << 16;

/// The element for a socket's cookie.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the low bits are the index")]
pub const fn index(cookie: u64) -> u32 {
    cookie as u32 & (PEERS - 1)
}

const _: () = assert!(size_of::<Peer>() == 32);
const _: () = assert!(PEERS.is_power_of_two());
