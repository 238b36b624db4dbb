//! What the iterators report to the agent: a UDP socket with a translation for its peer, and who holds it.

use bytemuck::{Pod, Zeroable};

use crate::{address::Address, address::Port, translation::Translation};

/// A connected socket, as an iterator writes it. Nothing of it is in a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct HeldSocket {
    /// The socket's cookie.
    pub cookie: u64,
    /// The thread that holds it, as the agent's process namespace numbers it; 0 if none was asked for.
    pub thread: u32,
    /// The leader of its thread group.
    pub process: u32,
    /// Its descriptor there.
    pub descriptor: u32,
    /// The peer's port.
    pub peer_port: Port,
    /// Zero.
    pub padding: u16,
    /// The peer's address, as the kernel has it: an endpoint's, or a frontend's without endpoints.
    pub peer: Address,
    /// The record that leads to this peer.
    pub translation: Translation,
}

const _: () = assert!(size_of::<HeldSocket>() == 88);
