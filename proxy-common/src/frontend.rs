//! FRONTENDS: the address, port and protocol that clients use, and the service behind it.

use bytemuck::{Pod, Zeroable, must_cast};

use crate::address::{Address, Port, Protocol};

/// A key of FRONTENDS.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Pod, Zeroable)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(C)]
pub struct FrontendKey {
    /// The address that clients use; of a NodePort the family's "any" address.
    pub address: Address,
    /// The port that clients use.
    pub port: Port,
    /// IANA protocol number.
    pub protocol: u8,
    /// 1 for a NodePort, which stands for every address of this node; 0 for exactly `address`.
    /// Without it, a connect to `[::]:30080` would meet a NodePort's entry without the check of who asks.
    pub any_address: u8,
    /// Zero.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub padding: u32,
}

impl FrontendKey {
    /// The key of exactly this address.
    #[inline(always)]
    pub const fn new(address: Address, port: Port, protocol: u8) -> Self {
        Self::in_words(address, port, protocol, 0)
    }

    /// The key of a NodePort in the family of `address`.
    #[inline(always)]
    pub const fn node_port(address: &Address, port: Port, protocol: u8) -> Self {
        Self::in_words(address.any_of_family(), port, protocol, 1)
    }

    /// Put together in words, for the reason that [`Address::from_words`] gives.
    #[inline(always)]
    const fn in_words(address: Address, port: Port, protocol: u8, any_address: u8) -> Self {
        let [high, low]: [u64; 2] = must_cast(address.bytes);
        let rest = port.number as u64 | (protocol as u64) << 16 | (any_address as u64) << 24;
        must_cast([high, low, rest])
    }

    /// Twenty-four bits that depend on every bit of the key.
    #[inline(always)]
    pub const fn fingerprint(&self) -> u32 {
        let [_, _, rest]: [u64; 3] = must_cast(*self);
        self.address.fingerprint_with(rest) >> 8
    }
}

impl core::fmt::Display for FrontendKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let protocol = Protocol::from_number(self.protocol).map_or("?", Protocol::name);
        if self.any_address != 0 {
            let family = if self.address.is_v4() { "IPv4" } else { "IPv6" };
            write!(f, "node-{family}:{}/{protocol}", self.port)
        } else if self.address.is_v4() {
            write!(f, "{}:{}/{protocol}", self.address, self.port)
        } else {
            write!(f, "[{}]:{}/{protocol}", self.address, self.port)
        }
    }
}

/// Words of NODE_PORTS.
pub const NODE_PORT_WORDS: u32 = 1 << 10;

/// Which word of NODE_PORTS a port has a bit in, and the bit.
#[inline(always)]
pub const fn node_port_bit(port: Port) -> (u32, u64) {
    ((port.number >> 6) as u32, 1 << (port.number & 63))
}

/// How clients reach a Service through this frontend; decides which of its endpoint sets they get.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(u8)]
pub enum FrontendKind {
    /// `spec.clusterIPs`.
    ClusterIp = 1,
    /// `spec.ports[].nodePort`, on this node's own addresses.
    NodePort = 2,
    /// `status.loadBalancer.ingress[].ip` with ipMode VIP.
    LoadBalancer = 3,
    /// `spec.externalIPs`.
    ExternalIp = 4,
}

impl FrontendKind {
    /// The field's standard term.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ClusterIp => "ClusterIP",
            Self::NodePort => "NodePort",
            Self::LoadBalancer => "LoadBalancer",
            Self::ExternalIp => "ExternalIP",
        }
    }

    /// From the number in a [`Frontend`].
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::ClusterIp),
            2 => Some(Self::NodePort),
            3 => Some(Self::LoadBalancer),
            4 => Some(Self::ExternalIp),
            _ => None,
        }
    }
}

impl core::fmt::Display for FrontendKind {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(self.name())
    }
}

/// A value of FRONTENDS. Written once, read as one 64-bit word.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct Frontend {
    /// Index into SERVICES.
    pub service: u32,
    /// A [`FrontendKind`].
    pub kind: u8,
    /// [`FrontendKey::fingerprint`] of the key, lowest byte first: a mismatch means that the element was reused while it was read.
    pub fingerprint: [u8; 3],
}

impl Frontend {
    /// The value for `key`.
    pub const fn new(key: &FrontendKey, service: u32, kind: FrontendKind) -> Self {
        let [a, b, c, _] = key.fingerprint().to_le_bytes();
        Self { service, kind: kind as u8, fingerprint: [a, b, c] }
    }

    /// The value that was read as `word`, if it is the one for `key`; 0 is none. In shifts, not fields: kernel code
    /// would compare an array of three bytes one by one.
    #[inline(always)]
    pub const fn read(word: u64, key: &FrontendKey) -> Option<Self> {
        if word == 0 || (word >> 40) as u32 != key.fingerprint() {
            return None;
        }
        Some(must_cast(word))
    }
}

/// What a lookup gives: the Service, and a guess where its endpoints are. Eight bytes, as packet programs keep it on their
/// stack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found {
    /// Index into SERVICES.
    pub service: u32,
    /// The guess in its upper three bytes, the kind in the lowest.
    bits: u32,
}

impl Found {
    /// No slot: beyond the end of any ENDPOINTS.
    const NO_GUESS: u32 = 0xff_ffff;

    /// What leads to the Service of `frontend`, whose endpoints perhaps begin at slot `guess`.
    #[inline(always)]
    pub const fn new(frontend: &Frontend, guess: u32) -> Self {
        Self { service: frontend.service, bits: frontend.kind as u32 | guess << 8 }
    }

    /// In a word, which is not 0: no kind is.
    #[inline(always)]
    pub const fn word(&self) -> u64 {
        self.service as u64 | (self.bits as u64) << 32
    }

    /// From the word; nothing from 0.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "a half of the word")]
    pub const fn from_word(word: u64) -> Option<Self> {
        if word == 0 { None } else { Some(Self { service: word as u32, bits: (word >> 32) as u32 }) }
    }

    /// A [`FrontendKind`].
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the lowest byte")]
    pub const fn kind(&self) -> u8 {
        self.bits as u8
    }

    /// A slot that may be one of the Service's.
    #[inline(always)]
    pub const fn guess(&self) -> u32 {
        self.bits >> 8
    }
}

impl From<Frontend> for Found {
    #[inline(always)]
    fn from(frontend: Frontend) -> Self {
        Self::new(&frontend, Self::NO_GUESS)
    }
}

const _: () = assert!(size_of::<Found>() == 8);
const _: () = assert!(size_of::<FrontendKey>() == 24);
const _: () = assert!(size_of::<Frontend>() == 8);
// A word's bytes are counted from the lowest: `Frontend::read` relies on it, and every BPF target is so.
const _: () = assert!(cfg!(target_endian = "little"));
