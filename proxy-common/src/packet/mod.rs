//! Packets as bytes: parsing headers, rewriting addresses, translating ICMP errors, and building answers.
//!
//! | file | concept |
//! |---|---|
//! | `checksum` | the Internet checksum, and its incremental update |
//! | `network` | IPv4 and IPv6 headers, options, extension headers, fragments |
//! | `transport` | ports, and the state that a TCP segment shows |
//! | `rewrite` | rewriting addresses and ports, checksums included |
//! | `forward` | forwarding a packet past the stack |
//! | `error` | ICMP and ICMPv6 errors: the packet that they quote |
//! | `answer` | TCP resets and "port unreachable" |
//! | `layouts` | assertions that our headers match the `network-types` crate |
//!
//! Everything here is arithmetic on a [`Read`] and an [`Edit`]: the kernel programs implement them with the
//! kernel's helpers, the host tests with a vector of bytes. Offsets are bytes from the packet's first byte, link
//! header included. A packet that is too short or of another kind reads as `None`, never as a panic.
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
pub use rewrite::{PacketHook, Side, rewrite, rewrite_both};
pub use transport::{Numbers, Segment, Transport};

/// A packet's bytes.
pub trait Read {
    /// Copies the bytes from `offset` on; `None` if the packet is too short.
    fn load<T: Pod>(&self, offset: u32) -> Option<T>;
}

/// Changes to a packet, with the information that the kernel needs about them. `None`: the change failed, and the
/// packet must be dropped, as it may be half changed.
pub trait Edit {
    /// Applies a difference to the transport checksum at `offset`.
    fn transport_checksum(&mut self, offset: u32, difference: u32, change: Change) -> Option<()>;

    /// Reports that bytes that no checksum in the packet covers have changed by `difference`, for example an IPv6
    /// address of a later fragment. A device's sum over all bytes of the packet (`CHECKSUM_COMPLETE`) changes with
    /// them.
    fn uncovered(&mut self, difference: u32);

    /// Writes `value` at `offset`. The caller updates the checksums that cover it.
    fn store<T: Pod>(&mut self, offset: u32, value: &T) -> Option<()>;
}

/// The kind of bytes whose change a transport checksum must follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Change {
    /// The bytes are an address of the pseudo-header; else they belong to the transport header.
    pub pseudo_header: bool,
    /// The packet is IPv6, whose header has no checksum that would balance the change of an address.
    pub v6: bool,
    /// A checksum of 0 means that the packet has none (UDP).
    pub optional: bool,
}
