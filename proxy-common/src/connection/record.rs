//! The record of a connection: a value of FLOWS.

use bytemuck::{Pod, Zeroable, must_cast, must_cast_ref};

use crate::address::{Address, Port};

/// The five things that a packet's headers say of its connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct Tuple {
    /// Where the packet comes from.
    pub source: Address,
    /// Where it goes.
    pub destination: Address,
    /// Where it comes from.
    pub source_port: Port,
    /// Where it goes.
    pub destination_port: Port,
    /// IANA protocol number.
    pub protocol: u8,
    /// Zero.
    pub padding: [u8; 3],
}

impl Tuple {
    /// Put together in words, for the reason that [`Address::from_words`] gives.
    #[inline(always)]
    pub const fn new(protocol: u8, source: (Address, Port), destination: (Address, Port)) -> Self {
        let [a, b]: [u64; 2] = must_cast(source.0.bytes);
        let [c, d]: [u64; 2] = must_cast(destination.0.bytes);
        let ports = source.1.number as u64 | (destination.1.number as u64) << 16;
        must_cast([a, b, c, d, ports | (protocol as u64) << 32])
    }

    /// That of a packet in the other direction.
    #[inline(always)]
    #[must_use]
    pub const fn reversed(&self) -> Self {
        Self::new(self.protocol, self.to(), self.from())
    }

    /// Address and port that the packet comes from.
    #[inline(always)]
    pub const fn from(&self) -> (Address, Port) {
        (self.source, self.source_port)
    }

    /// Address and port that it goes to.
    #[inline(always)]
    pub const fn to(&self) -> (Address, Port) {
        (self.destination, self.destination_port)
    }

    /// Gives it another destination.
    #[inline(always)]
    pub const fn lead_to(&mut self, (address, port): (Address, Port)) {
        self.destination = address;
        self.destination_port = port;
    }

    /// Whether it is the other one. (Of the derived comparison the compiler makes branches.)
    #[inline(always)]
    pub const fn is(&self, other: &Self) -> bool {
        let [a, b]: [[u64; 5]; 2] = [must_cast(*self), must_cast(*other)];
        (a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]) | (a[4] ^ b[4]) == 0
    }

    /// Its five words.
    #[inline(always)]
    pub const fn words(&self) -> &[u64; 5] {
        must_cast_ref(self)
    }
}

/// What has been seen of a connection: one aligned half of a word. Every byte is written by packets of one direction only,
/// or always with the same value, so that processors which write different bytes at once lose nothing.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Seen {
    /// In packets from the client: the bits below.
    pub client: u8,
    /// In packets from the endpoint.
    pub endpoint: u8,
    /// The side that reset the connection: [`Seen::BY_CLIENT`] and the values after it; 0 for none.
    pub reset: u8,
    /// Which way it takes through the node: [`Seen::UNDECIDED`] and what follows there.
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
    /// Of the client's byte: the client sent again after an answer, which a client with a forged address cannot do.
    pub const CONFIRMED: u8 = 8;

    /// Of `reset`: the client.
    pub const BY_CLIENT: u8 = 1;
    /// Of `reset`: the endpoint.
    pub const BY_ENDPOINT: u8 = 2;
    /// Of `reset`: neither side; the record was given up.
    pub const GIVEN_UP: u8 = 3;

    /// Of `route`: a TCP connection whose handshake is not over, or datagrams.
    pub const UNDECIDED: u8 = 0;
    /// Of `route`: all of it passes the node's stack.
    pub const STACK: u8 = 1;
    /// Of `route`: nothing of it passes the stack after the handshake.
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

/// The half of a record that every packet needs: who talks to whom. One cache line, of which all but [`Seen`] never changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct Ends {
    /// The client.
    pub client: Address,
    /// The frontend's address.
    pub frontend: Address,
    /// The endpoint's.
    pub endpoint: Address,
    /// The client's port.
    pub client_port: Port,
    /// The frontend's port.
    pub frontend_port: Port,
    /// The endpoint's port.
    pub endpoint_port: Port,
    /// IANA protocol number.
    pub protocol: u8,
    /// [`Ends::MASQUERADED`], [`Ends::LOCAL`].
    pub flags: u8,
    /// [`Ends::checksum`]: a mismatch means that a write is under way.
    pub check: u32,
    /// What changes.
    pub seen: Seen,
}

impl Ends {
    /// The endpoint sees the connection come from the node: from the record's [source](Origin::source).
    pub const MASQUERADED: u8 = 1;
    /// The endpoint is on this node.
    pub const LOCAL: u8 = 2;
    /// No lookup finds the record yet: it is being made. The check does not cover it, so one store clears it.
    pub const PENDING: u8 = 4;

    /// Words of this half.
    pub const WORDS: usize = 8;
    /// Which word has the ports, the protocol and the flags.
    pub const PORTS: usize = 6;

    /// Whether it is masqueraded.
    #[inline(always)]
    pub const fn is_masqueraded(&self) -> bool {
        self.flags & Self::MASQUERADED != 0
    }

    /// Whether the endpoint is on this node.
    #[inline(always)]
    pub const fn is_local(&self) -> bool {
        self.flags & Self::LOCAL != 0
    }

    /// Whether this is whole.
    #[inline(always)]
    pub const fn is_whole(&self) -> bool {
        self.check == self.checksum()
    }

    /// What `check` is: depends on everything that never changes.
    #[inline(always)]
    pub const fn checksum(&self) -> u32 {
        Self::checksum_of(must_cast_ref(self))
    }

    /// The same, of the words.
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

/// The other half of a record: the endpoint, and the devices and routes of the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct Origin {
    /// The address that it is masqueraded with; any otherwise.
    pub source: Address,
    /// The port with it.
    pub source_port: Port,
    /// The generation of the endpoint's id.
    pub generation: u16,
    /// The endpoint's id.
    pub endpoint: u32,
    /// Index into SERVICES of the Service that the connection began with. It may have another owner by now.
    pub service: u32,
    /// [`Origin::checksum`] with the other half's.
    pub check: u32,
    /// When the last packet came by, in seconds since boot. Changes.
    pub seconds: u32,
    /// Index of the device that the client's packets come in by. Changes.
    pub device: u32,
    /// When the record was made, in seconds since boot.
    pub began: u32,
    /// TCP's sequence number of the endpoint's SYN, once that has come by. Changes.
    pub answer: u32,
    /// Zero.
    pub padding: [u32; 4],
}

impl Origin {
    /// Words of this half.
    pub const WORDS: usize = 8;

    /// What `check` is, in a record whose other half has the check `ends`.
    #[inline(always)]
    pub const fn checksum(&self, ends: u32) -> u32 {
        let [a, b, c, service, ..]: [u64; Self::WORDS] = must_cast(*self);
        checksum([a, b, c, service & 0xffff_ffff, ends as u64, 0, 0])
    }

    /// Whether this is whole, and belongs to a half with the check `ends`.
    #[inline(always)]
    pub const fn is_of(&self, ends: u32) -> bool {
        self.check == self.checksum(ends)
    }

    /// What it is masqueraded with.
    #[inline(always)]
    pub const fn masquerade(&self) -> (Address, Port) {
        (self.source, self.source_port)
    }
}

/// A value of FLOWS: two cache lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct Record {
    /// Who talks to whom.
    pub ends: Ends,
    /// The rest.
    pub origin: Origin,
}

impl Record {
    /// Whether both halves are whole, and of one record.
    pub const fn is_whole(&self) -> bool {
        self.ends.is_whole() && self.origin.is_of(self.ends.check)
    }

    /// Sets the checks right.
    #[must_use]
    pub const fn sealed(mut self) -> Self {
        self.ends.check = self.ends.checksum();
        self.origin.check = self.origin.checksum(self.ends.check);
        self
    }
}

/// Thirty-two bits that depend on every bit of the words: a mixture of two records has another sum but for one in four
/// thousand million.
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
