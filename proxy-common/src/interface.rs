//! INTERFACES: the devices that have our programs, and what the kernel does not tell a program of them.

use bytemuck::{Pod, Zeroable};

use crate::address::Address;

/// A value of INTERFACES: what the kernel does not tell a program of a device that has our programs. The key is the
/// device's index.
///
/// The addresses are those that the node takes for its own there when it masquerades (asked for before 6.7 only, which
/// has `BPF_FIB_LOOKUP_SRC`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct Interface {
    /// In IPv4, as `::ffff:a.b.c.d`; `::ffff:0.0.0.0` for none.
    pub v4: Address,
    /// In IPv6; `::` for none.
    pub v6: Address,
    /// Bytes of the longest packet that may be sent there past the stack: the least MTU of the device and of the routes through it.
    /// (`bpf_fib_lookup` does not know that of routes, and before 5.12 none of segmented packets.) 0 for a device without an
    /// Ethernet header.
    pub longest: u32,
    /// Bits of [`Interface::INSIDE`] and [`Interface::KEEPS_SOURCE`].
    pub flags: u32,
}

impl Interface {
    /// It leads to pods of this node: what comes in there are requests of clients inside.
    pub const INSIDE: u32 = 1 << 0;
    /// What leaves there for an endpoint keeps its source: the answer comes back by the same device.
    pub const KEEPS_SOURCE: u32 = 1 << 1;
}

const _: () = assert!(size_of::<Interface>() == 40);
