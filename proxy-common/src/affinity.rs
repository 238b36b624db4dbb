//! AFFINITY: which endpoint a client had last, for Services with `sessionAffinity: ClientIP`.

use bytemuck::{Pod, Zeroable};

use crate::address::mix;

/// A key of AFFINITY.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct AffinityKey {
    /// Who asks: at a socket, the cookie of its network namespace in the first eight bytes (ST-9);
    /// on the packet path the source address.
    pub client: [u8; 16],
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
        let c = &self.client;
        let mut state = mix(self.service, self.generation as u32);
        state = mix(state, u32::from_ne_bytes([c[0], c[1], c[2], c[3]]));
        state = mix(state, u32::from_ne_bytes([c[4], c[5], c[6], c[7]]));
        state = mix(state, u32::from_ne_bytes([c[8], c[9], c[10], c[11]]));
        state = mix(state, u32::from_ne_bytes([c[12], c[13], c[14], c[15]]));
        (state >> 16) as u16
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
