//! A socket's translations: SOCKETS, DATAGRAMS, and OVERFLOW for sockets that talk to many Services.

use bytemuck::{Pod, Zeroable};

use crate::{
    address::{Address, Port},
    endpoint::Endpoint,
    frontend::FrontendKey,
};

/// One translation made for a socket; the value of SOCKETS (the connected peer) and OVERFLOW.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Translation {
    /// The address that the process connected or sent to.
    pub frontend: Address,
    /// The address that it got.
    pub endpoint_address: Address,
    /// The port that the process connected or sent to; 0 in an unused record.
    pub frontend_port: Port,
    /// The port that it got.
    pub endpoint_port: Port,
    /// The endpoint's id.
    pub endpoint: u32,
    /// Index into SERVICES.
    pub service: u32,
    /// The generation of the endpoint's id.
    pub generation: u16,
    /// [`Translation::checksum`] in OVERFLOW, whose elements may be reused while they are read; else 0.
    pub checksum: u16,
}

impl Translation {
    /// A record that holds nothing.
    pub const UNUSED: Self = Self {
        frontend: Address::ANY_V6,
        endpoint_address: Address::ANY_V6,
        frontend_port: Port::NONE,
        endpoint_port: Port::NONE,
        endpoint: 0,
        service: 0,
        generation: 0,
        checksum: 0,
    };

    /// The record of a socket whose TCP connections are left alone: neither translated nor refused. The agent
    /// writes it for its own connections to the API server, before it connects.
    pub const BYPASS: Self = Self { service: u32::MAX, ..Self::UNUSED };

    /// The record of a client that asked for `frontend` and got `endpoint`.
    #[inline(always)]
    pub const fn new(frontend: &FrontendKey, endpoint: &Endpoint) -> Self {
        Self {
            frontend: frontend.address,
            endpoint_address: endpoint.address,
            frontend_port: frontend.port,
            endpoint_port: endpoint.port,
            endpoint: endpoint.id,
            service: endpoint.service,
            generation: endpoint.generation,
            checksum: 0,
        }
    }

    /// Whether this record leads from `address` and `port`.
    #[inline(always)]
    pub fn is_from(&self, address: &Address, port: Port) -> bool {
        self.frontend_port == port && port.number != 0 && self.frontend.words() == address.words()
    }

    /// Whether this record leads to `address` and `port`.
    #[inline(always)]
    pub fn is_to(&self, address: &Address, port: Port) -> bool {
        self.frontend_port.number != 0
            && self.endpoint_port == port
            && self.endpoint_address.words() == address.words()
    }

    /// Whether this is [`Translation::BYPASS`]. Forgetting a peer keeps it so.
    #[inline(always)]
    pub const fn is_bypass(&self) -> bool {
        self.service == u32::MAX && self.frontend_port.number == 0
    }

    /// Sixteen bits that depend on every other bit of the record.
    #[inline(always)]
    pub const fn checksum(&self) -> u16 {
        let ports = (self.frontend_port.number as u64) << 16 | self.endpoint_port.number as u64;
        let ids = (self.service as u64) << 32 | self.endpoint as u64;
        let rest = (self.endpoint_address.fingerprint_with(ids) as u64) << 32 | ports;
        (self.frontend.fingerprint_with(rest ^ (self.generation as u64) << 48) >> 16) as u16
    }
}

/// Value of DATAGRAMS: the latest translations of a socket that sends without being connected.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Datagrams {
    /// The translations, one for each Service address that the socket talks to.
    pub entries: [Translation; Datagrams::LEN],
    /// How many entries were moved to OVERFLOW; modulo [`Datagrams::LEN`] the entry that is replaced next.
    pub evicted: u32,
    /// The entry used last: the first guess for where an answer comes from.
    pub latest: u32,
}

impl Datagrams {
    /// How many Service addresses a socket remembers by itself. A resolver talks to one or two.
    pub const LEN: usize = 4;
    /// No translation yet.
    pub const EMPTY: Self = Self { entries: [Translation::UNUSED; Self::LEN], evicted: 0, latest: 0 };
}

/// A key of OVERFLOW: each translation stands there twice, by the address asked for and by the one given.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct OverflowKey {
    /// The socket's cookie.
    pub socket: u64,
    /// The address.
    pub address: Address,
    /// The port.
    pub port: Port,
    /// [`OverflowKey::BY_FRONTEND`] or [`OverflowKey::BY_ENDPOINT`].
    pub direction: u16,
    /// Zero.
    pub padding: u32,
}

impl OverflowKey {
    /// The key is the destination that the process named.
    pub const BY_FRONTEND: u16 = 0;
    /// The key is what the program got.
    pub const BY_ENDPOINT: u16 = 1;
}

const _: () = assert!(size_of::<Translation>() == 48);
const _: () = assert!(size_of::<Datagrams>() == 200);
const _: () = assert!(size_of::<OverflowKey>() == 32);
