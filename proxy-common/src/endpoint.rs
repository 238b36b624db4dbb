//! ENDPOINTS, the slots that spans point into, and ENDPOINT_STATE, what is known of an endpoint by its id.

use bytemuck::{Pod, Zeroable};

use crate::{
    address::{Address, Port},
    service::EndpointSet,
};

/// A slot of ENDPOINTS. Written before a span leads here, and not again until a grace period after
/// nothing does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct Endpoint {
    /// The pod's address.
    pub address: Address,
    /// Index into ENDPOINT_STATE. Ids start at 1.
    pub id: u32,
    /// Index into SERVICES of the Service that this slot belongs to.
    pub service: u32,
    /// The pod's port.
    pub port: Port,
    /// The id's generation: the same as in ENDPOINT_STATE as long as the endpoint exists.
    pub generation: u16,
    /// [`Endpoint::LOCAL`].
    pub flags: u32,
}

impl Endpoint {
    /// The endpoint is on this node: packets to it keep their client's address.
    pub const LOCAL: u32 = 1;

    /// Whether the endpoint is on this node.
    #[inline(always)]
    pub const fn is_local(&self) -> bool {
        self.flags & Self::LOCAL != 0
    }
}

/// An element of ENDPOINT_STATE, read and written as one 64-bit word.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct EndpointState {
    /// A slot that holds this endpoint.
    pub slot: u32,
    /// Counts the uses of this id: whoever remembers an id remembers its generation.
    pub generation: u16,
    /// [`EndpointState::SERVING`] and the `usable` bits; 0 when the id is free.
    pub bits: u16,
}

impl EndpointState {
    /// The endpoint still answers: flows that it has may stay with it.
    pub const SERVING: u16 = 1 << 3;

    /// The bit that says that new connections of this set may be sent to the endpoint.
    #[inline(always)]
    pub const fn usable(set: EndpointSet) -> u16 {
        1 << set as u16
    }
}

const _: () = assert!(size_of::<Endpoint>() == 32);
const _: () = assert!(size_of::<EndpointState>() == 8);
