//! FRAGMENTS: which ports the fragments of a datagram belong to. Only its first fragment has them.

use bytemuck::{Pod, Zeroable, must_cast};

use crate::address::{Address, Port};

/// A key of FRAGMENTS: what the fragments of one datagram have in common, at one hook.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct FragmentKey {
    /// Where the datagram comes from.
    pub source: Address,
    /// Where it goes.
    pub destination: Address,
    /// Its identification, as in the packet.
    pub identification: u32,
    /// IANA protocol number of the datagram.
    pub protocol: u8,
    /// A [`PacketHook`](crate::packet::PacketHook).
    pub hook: u8,
    /// Zero.
    pub padding: u16,
}

/// A value of FRAGMENTS, read as one 64-bit word: the ports, which only the first fragment has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct FragmentPorts {
    /// The datagram's source port.
    pub source: Port,
    /// The datagram's destination port.
    pub destination: Port,
    /// [`FragmentKey::fingerprint`] of the key: a mismatch means that the element was reused while it was read.
    pub fingerprint: u32,
}

impl FragmentKey {
    /// Thirty-two bits that depend on every bit of the key.
    #[inline(always)]
    pub const fn fingerprint(&self) -> u32 {
        let [_, _, _, _, rest]: [u64; 5] = must_cast(*self);
        let source = self.source.fingerprint_with(rest) as u64;
        self.destination.fingerprint_with(source << 16)
    }
}

const _: () = assert!(size_of::<FragmentKey>() == 40);
const _: () = assert!(size_of::<FragmentPorts>() == 8);
