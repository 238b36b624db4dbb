//! Packets as bytes: reading headers, rewriting one address, errors that quote a packet, and answers of our own.
//!
//! | file | concept |
//! |---|---|
//! | `checksum` | the Internet checksum, and its update for changed bytes |
//! | `network` | IPv4 and IPv6 headers, options, extension headers, fragments |
//! | `transport` | ports, and the state that a TCP segment shows |
//! | `rewrite` | one address and port for another, checksums included |
//! | `forward` | forwarding a packet past the stack |
//! | `error` | ICMP and ICMPv6 errors: the packet that they quote |
//! | `answer` | TCP resets and "port unreachable" |
//! | `layouts` | assertions that our headers match the `network-types` crate |
//!
//! Everything here is arithmetic on a [`Read`] and an [`Edit`]: the kernel programs implement them with the kernel's
//! helpers, the host tests with a vector of bytes. Offsets are bytes from the packet's first byte, link header
//! included. A packet that is too short or of another kind reads as `None`, never as a panic.
#![expect(clippy::cast_possible_truncation, reason = "sums are folded, and lengths are those of headers")]

pub mod answer;
pub mod checksum;
pub mod error;
pub mod forward;
pub mod layouts;
pub mod network;
pub mod rewrite;
pub mod transport;

use bytemuck::Pod;

pub use network::{Fragment, Network};
pub use rewrite::{PacketHook, Side, rewrite};
pub use transport::{Numbers, Segment, Transport};

/// A packet's bytes.
pub trait Read {
    /// A copy of the bytes from `offset` on; nothing if the packet ends before.
    fn load<T: Pod>(&self, offset: u32) -> Option<T>;
}

/// Changes of a packet's bytes, with whatever the kernel must know of them. `None`: the packet cannot be changed, and
/// must not go on half changed.
pub trait Edit {
    /// Applies a difference to the transport checksum at `offset`.
    fn transport_checksum(&mut self, offset: u32, difference: u32, change: Change) -> Option<()>;

    /// Bytes outside of every checksum in the packet have changed by `difference`, as an IPv6 address of a later fragment
    /// does: a device's sum over all bytes of the packet (`CHECKSUM_COMPLETE`) changes with them.
    fn uncovered(&mut self, difference: u32);

    /// Puts `value` at `offset`. Checksums that cover it have been seen to.
    fn store<T: Pod>(&mut self, offset: u32, value: &T) -> Option<()>;
}

/// What a change of a transport checksum is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Change {
    /// The bytes that change are an address of the pseudo-header; else they are the transport's own.
    pub pseudo_header: bool,
    /// The packet is IPv6, whose header has no checksum that would balance the change of an address.
    pub v6: bool,
    /// A checksum of 0 means that there is none (UDP).
    pub optional: bool,
}
