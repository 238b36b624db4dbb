//! AFFINITY: which endpoint a client had last, for Services with `sessionAffinity: ClientIP`.

use bytemuck::{Pod, Zeroable};

use crate::address::Address;

/// A key of AFFINITY.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct AffinityKey {
    /// The client: at a socket its network namespace ([`Address::of_namespace`], ST-9), on the packet path the source
    /// address.
    pub client: Address,
    /// Index into SERVICES.
    pub service: u32,
    /// The index's generation.
    pub generation: u16,
    /// Zero.
    pub padding: u16,
}

impl AffinityKey {
    /// Sixteen bits that depend on every bit of the key.
    #[inline(always)]
    pub const fn fingerprint(&self) -> u16 {
        let rest = (self.service as u64) << 16 | self.generation as u64;
        (self.client.fingerprint_with(rest) >> 16) as u16
    }
}

/// A value of AFFINITY. The first word is read as one, so that id, generation and fingerprint belong together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct Affinity {
    /// The endpoint's id.
    pub endpoint: u32,
    /// The id's generation.
    pub generation: u16,
    /// [`AffinityKey::fingerprint`] of the key: the LRU may reuse an element while it is read.
    pub fingerprint: u16,
    /// When the client's last connection was made, in nanoseconds since boot.
    pub last_used: u64,
}

const _: () = assert!(size_of::<AffinityKey>() == 24);
const _: () = assert!(size_of::<Affinity>() == 16);
