//! The record of a connection: a value of FLOWS.

use bytemuck::{Pod, Zeroable, must_cast, must_cast_ref};

use crate::address::{Address, Port};

/// The 5-tuple of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct Tuple {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Source port.
    pub source_port: Port,
    /// Destination port.
    pub destination_port: Port,
    /// IANA protocol number.
    pub protocol: u8,
    /// Zero.
    pub padding: [u8; 3],
}

impl Tuple {
    /// Composed of whole words, for the reason given at [`Address::from_words`].
    #[inline(always)]
    pub const fn new(protocol: u8, source: (Address, Port), destination: (Address, Port)) -> Self {
        let [a, b]: [u64; 2] = must_cast(source.0.bytes);
        let [c, d]: [u64; 2] = must_cast(destination.0.bytes);
        let ports = source.1.number as u64 | (destination.1.number as u64) << 16;
        must_cast([a, b, c, d, ports | (protocol as u64) << 32])
    }

    /// The tuple of a packet in the other direction.
    #[inline(always)]
    #[must_use]
    pub const fn reversed(&self) -> Self {
        Self::new(self.protocol, self.to(), self.from())
    }

    /// Source address and port.
    #[inline(always)]
    pub const fn from(&self) -> (Address, Port) {
        (self.source, self.source_port)
    }

    /// Destination address and port.
    #[inline(always)]
    pub const fn to(&self) -> (Address, Port) {
        (self.destination, self.destination_port)
    }

    /// Replaces the destination.
    #[inline(always)]
    pub const fn lead_to(&mut self, (address, port): (Address, Port)) {
        self.destination = address;
        self.destination_port = port;
    }

    /// Whether the tuples are equal. (The compiler makes branches of the derived comparison.)
    #[inline(always)]
    pub const fn is(&self, other: &Self) -> bool {
        let [a, b]: [[u64; 5]; 2] = [must_cast(*self), must_cast(*other)];
        (a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]) | (a[4] ^ b[4]) == 0
    }

    /// The tuple as five words.
    #[inline(always)]
    pub const fn words(&self) -> &[u64; 5] {
        must_cast_ref(self)
    }
}

/// What has been seen of a connection: four bytes, aligned. `client` and `endpoint` are each written by packets of
/// one direction only, so processors that write different bytes at once lose nothing.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Seen {
    /// Bits seen in packets from the client: those below.
    pub client: u8,
    /// Bits seen in packets from the endpoint.
    pub endpoint: u8,
    /// The side that reset the connection: [`Seen::BY_CLIENT`] or one of the values after it; 0 for none.
    pub reset: u8,
    /// Path of the connection through the node: [`Seen::UNDECIDED`] or one of the values after it.
    pub route: u8,
}

impl Seen {
    /// A packet has passed.
    pub const PACKET: u8 = 1;
    /// A TCP segment with FIN has passed.
    pub const FIN: u8 = 2;
    /// A packet went through the stack and left by an uplink as expected: later ones may take the [fast
    /// path](Seen::FAST).
    pub const LEFT: u8 = 4;
    /// In `client`: the client sent again after an answer, which a client with a forged address cannot do.
    pub const CONFIRMED: u8 = 8;

    /// In `reset`: the client.
    pub const BY_CLIENT: u8 = 1;
    /// In `reset`: the endpoint.
    pub const BY_ENDPOINT: u8 = 2;
    /// In `reset`: neither side; the record was given up.
    pub const GIVEN_UP: u8 = 3;

    /// In `route`: a TCP connection in its handshake, or a UDP flow.
    pub const UNDECIDED: u8 = 0;
    /// In `route`: all packets pass through the stack.
    pub const STACK: u8 = 1;
    /// In `route`: no packet passes through the stack after the handshake.
    pub const FAST: u8 = 2;

    /// Whether the connection has ended: a reset, or FIN from both sides.
    #[inline(always)]
    pub const fn ended(self) -> bool {
        self.reset != 0 || self.client & self.endpoint & Self::FIN != 0
    }

    /// Whether the endpoint has answered.
    #[inline(always)]
    pub const fn answered(self) -> bool {
        self.endpoint & Self::PACKET != 0
    }

    /// Whether the connection is confirmed.
    #[inline(always)]
    pub const fn confirmed(self) -> bool {
        self.client & Self::CONFIRMED != 0
    }
}

/// The half of a record that every packet needs: client, frontend and endpoint. One cache line; only [`Seen`] and
/// [`Ends::PENDING`] change.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct Ends {
    /// The address of the client.
    pub client: Address,
    /// The address of the frontend.
    pub frontend: Address,
    /// The address of the endpoint.
    pub endpoint: Address,
    /// The client's port.
    pub client_port: Port,
    /// The frontend's port.
    pub frontend_port: Port,
    /// The endpoint's port.
    pub endpoint_port: Port,
    /// IANA protocol number.
    pub protocol: u8,
    /// [`Ends::MASQUERADED`], [`Ends::LOCAL`], [`Ends::PENDING`], [`Ends::REMAPPED`].
    pub flags: u8,
    /// [`Ends::checksum`]; a mismatch means that a write is in progress.
    pub check: u32,
    /// The state of the connection.
    pub seen: Seen,
}

impl Ends {
    /// The connection is masqueraded: the endpoint sees the [SNAT source](Origin::source) of the record.
    pub const MASQUERADED: u8 = 1;
    /// The endpoint is on this node.
    pub const LOCAL: u8 = 2;
    /// The record is still being written, and lookups ignore it. Not covered by the check, so one store clears it.
    pub const PENDING: u8 = 4;
    /// Another connection of the client port leads to the same endpoint. So between ingress and egress, and to an
    /// endpoint on this node, the packets of this one have the [source port](Origin::source_port) instead of the
    /// client's.
    pub const REMAPPED: u8 = 8;

    /// Words of this half.
    pub const WORDS: usize = 8;
    /// Index of the word with the ports, the protocol and the flags.
    pub const PORTS: usize = 6;

    /// Whether the connection is masqueraded.
    #[inline(always)]
    pub const fn is_masqueraded(&self) -> bool {
        self.flags & Self::MASQUERADED != 0
    }

    /// Whether the endpoint is on this node.
    #[inline(always)]
    pub const fn is_local(&self) -> bool {
        self.flags & Self::LOCAL != 0
    }

    /// Whether the client's port is replaced between ingress and egress.
    #[inline(always)]
    pub const fn is_remapped(&self) -> bool {
        self.flags & Self::REMAPPED != 0
    }

    /// Whether the connection has a source port.
    #[inline(always)]
    pub const fn has_source_port(&self) -> bool {
        self.flags & (Self::MASQUERADED | Self::REMAPPED) != 0
    }

    /// Whether the check matches.
    #[inline(always)]
    pub const fn is_whole(&self) -> bool {
        self.check == self.checksum()
    }

    /// The expected `check`: a checksum of everything that never changes.
    #[inline(always)]
    pub const fn checksum(&self) -> u32 {
        Self::checksum_of(must_cast_ref(self))
    }

    /// The same for a half given as words.
    #[inline(always)]
    pub const fn checksum_of(words: &[u64; Self::WORDS]) -> u32 {
        const CONSTANT: u64 = !((Ends::PENDING as u64) << 56);
        let [client, client_low, frontend, frontend_low, endpoint, endpoint_low, ports, _] = *words;
        checksum([client, client_low, frontend, frontend_low, endpoint, endpoint_low, ports & CONSTANT])
    }

    /// Address and port of the client.
    #[inline(always)]
    pub const fn from(&self) -> (Address, Port) {
        (self.client, self.client_port)
    }

    /// Address and port of the client between ingress and egress.
    #[inline(always)]
    pub const fn inside(&self, origin: &Origin) -> (Address, Port) {
        (self.client, if self.is_remapped() { origin.source_port } else { self.client_port })
    }

    /// Address and port of the endpoint.
    #[inline(always)]
    pub const fn to(&self) -> (Address, Port) {
        (self.endpoint, self.endpoint_port)
    }

    /// Address and port of the frontend.
    #[inline(always)]
    pub const fn asked(&self) -> (Address, Port) {
        (self.frontend, self.frontend_port)
    }
}

/// The other half of a record: SNAT source, endpoint id, ingress device and times.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct Origin {
    /// The SNAT address; the client's if only the port is replaced, arbitrary if nothing is.
    pub source: Address,
    /// The SNAT port; [`Port::NONE`] if the client keeps its own.
    pub source_port: Port,
    /// The generation of the endpoint's id.
    pub generation: u16,
    /// The endpoint's id.
    pub endpoint: u32,
    /// Index into SERVICES of the Service with which the connection began. It may stand for another Service by
    /// now.
    pub service: u32,
    /// [`Origin::checksum`], which includes the check of the other half.
    pub check: u32,
    /// Time of the last packet, in seconds since boot. Changes.
    pub seconds: u32,
    /// Index of the ingress device of the client's packets. Changes.
    pub device: u32,
    /// Time of creation, in seconds since boot.
    pub began: u32,
    /// TCP sequence number of the endpoint's SYN, once seen. Changes.
    pub answer: u32,
    /// Zero.
    pub padding: [u32; 4],
}

impl Origin {
    /// Words of this half.
    pub const WORDS: usize = 8;

    /// The expected `check` in a record whose other half has the check `ends`.
    #[inline(always)]
    pub const fn checksum(&self, ends: u32) -> u32 {
        let [a, b, c, service, ..]: [u64; Self::WORDS] = must_cast(*self);
        checksum([a, b, c, service & 0xffff_ffff, ends as u64, 0, 0])
    }

    /// Whether the check matches in a record whose other half has the check `ends`.
    #[inline(always)]
    pub const fn is_of(&self, ends: u32) -> bool {
        self.check == self.checksum(ends)
    }

    /// SNAT address and port.
    #[inline(always)]
    pub const fn masquerade(&self) -> (Address, Port) {
        (self.source, self.source_port)
    }
}

/// A value of FLOWS: two cache lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct Record {
    /// Client, frontend and endpoint.
    pub ends: Ends,
    /// Everything else.
    pub origin: Origin,
}

impl Record {
    /// Whether the checks of both halves match.
    pub const fn is_whole(&self) -> bool {
        self.ends.is_whole() && self.origin.is_of(self.ends.check)
    }

    /// Recomputes both checks.
    #[must_use]
    pub const fn sealed(mut self) -> Self {
        self.ends.check = self.ends.checksum();
        self.origin.check = self.origin.checksum(self.ends.check);
        self
    }
}

/// A 32-bit checksum that depends on every bit of the words. A mixture of two records matches by chance once in
/// 2^32.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "folded")]
const fn checksum(words: [u64; 7]) -> u32 {
    const FACTORS: [u64; 7] = [
        0x9e37_79b9_7f4a_7c15,
        0xc2b2_ae3d_27d4_eb4f,
        0x1656_67b1_9e37_79f9,
        0x85eb_ca77_c2b2_ae63,
        0x27d4_eb2f_1656_67c5,
        0xd6e8_feb8_6659_fd93,
        0xa076_1d64_78bd_642f,
    ];
    let mut sum = 0xe703_7ed1_a0b4_28db_u64;
    let mut index = 0;
    while index < 7 {
        sum = sum.wrapping_add(words[index].wrapping_mul(FACTORS[index]));
        index += 1;
    }
    (sum ^ sum >> 32) as u32
}

const _: () = assert!(size_of::<Tuple>() == 40);
const _: () = assert!(size_of::<Seen>() == 4);
const _: () = assert!(size_of::<Ends>() == 64 && size_of::<Origin>() == 64);
const _: () = assert!(size_of::<Record>() == 128);
