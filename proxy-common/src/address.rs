//! Addresses, ports and protocols as the tables spell them, and the ADDRESSES table.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytemuck::{Pod, Zeroable, must_cast};

/// An IP address: IPv6, or IPv4 as `::ffff:a.b.c.d`, in network byte order.
///
/// One spelling for both families, so that IPv4, IPv6 and v4-mapped sockets share tables and code.
/// Aligned to eight bytes: kernel code then copies and compares it in words, not bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Pod, Zeroable)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(from = "IpAddr", into = "IpAddr"))]
#[repr(C, align(8))]
pub struct Address {
    /// The sixteen bytes, in network byte order.
    pub bytes: [u8; 16],
}

impl Address {
    /// `::`, the "any" address of IPv6.
    pub const ANY_V6: Self = Self { bytes: [0; 16] };
    /// `::ffff:0.0.0.0`, the "any" address of IPv4.
    pub const ANY_V4: Self = Self::from_v4([0; 4]);

    /// The v4-mapped form of an IPv4 address given in network byte order.
    #[inline(always)]
    pub const fn from_v4(v4: [u8; 4]) -> Self {
        Self::from_words([0, 0, 0xffff_u32.to_be(), u32::from_ne_bytes(v4)])
    }

    /// From the four words of a kernel context, each in network byte order as stored in memory.
    ///
    /// Put together in two halves, so that kernel code stores it as they are read again: a load that spans
    /// two stores waits for both.
    #[inline(always)]
    pub const fn from_words(words: [u32; 4]) -> Self {
        let [a, b, c, d] = words;
        let halves = [a as u64 | (b as u64) << 32, c as u64 | (d as u64) << 32];
        Self { bytes: must_cast(halves) }
    }

    /// The four words of a kernel context; the inverse of [`Address::from_words`].
    #[inline(always)]
    pub const fn words(&self) -> [u32; 4] {
        must_cast(self.bytes)
    }

    /// In place of the address of a client that is known by its network namespace: its cookie in the first eight bytes, and zeros,
    /// which no host's address has there.
    #[inline(always)]
    pub const fn of_namespace(cookie: u64) -> Self {
        Self { bytes: must_cast([cookie, 0]) }
    }

    /// The cookie of the network namespace that this stands for, if it does.
    #[inline(always)]
    pub const fn namespace(&self) -> Option<u64> {
        let [cookie, rest]: [u64; 2] = must_cast(self.bytes);
        if rest == 0 { Some(cookie) } else { None }
    }

    /// Whether both are the same. (The compiler makes branches of the derived comparison.)
    #[inline(always)]
    pub const fn is(&self, other: &Self) -> bool {
        let ([a, b], [c, d]): ([u64; 2], [u64; 2]) = (must_cast(self.bytes), must_cast(other.bytes));
        (a ^ c) | (b ^ d) == 0
    }

    /// Whether this is IPv4 (`::ffff:0:0/96`).
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        let [a, b, c, _] = self.words();
        a == 0 && b == 0 && c == 0xffff_u32.to_be()
    }

    /// Whether connecting to this address reaches the caller's own network namespace through loopback:
    /// 127.0.0.0/8 and `::1`, and the unspecified addresses, which the kernel turns into loopback.
    #[inline(always)]
    pub const fn is_loopback(&self) -> bool {
        let [a, b, c, d] = self.words();
        if a != 0 || b != 0 {
            return false;
        }
        if c == 0xffff_u32.to_be() {
            return u32::from_be(d) >> 24 == 127 || d == 0;
        }
        c == 0 && (d == 0 || d == 1_u32.to_be())
    }

    /// Whether this is the "any" address of a family.
    #[inline(always)]
    pub const fn is_unspecified(&self) -> bool {
        let [a, b, c, d] = self.words();
        a == 0 && b == 0 && d == 0 && (c == 0 || c == 0xffff_u32.to_be())
    }

    /// The "any" address of this address's family: what NodePort frontends are keyed by.
    #[inline(always)]
    #[must_use]
    pub const fn any_of_family(&self) -> Self {
        if self.is_v4() { Self::ANY_V4 } else { Self::ANY_V6 }
    }
}

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(v4) => Self::from_v4(v4.octets()),
            IpAddr::V6(v6) => Self { bytes: v6.octets() },
        }
    }
}

impl From<Address> for IpAddr {
    fn from(address: Address) -> Self {
        if address.is_v4() {
            let [.., a, b, c, d] = address.bytes;
            IpAddr::V4(Ipv4Addr::new(a, b, c, d))
        } else {
            IpAddr::V6(Ipv6Addr::from(address.bytes))
        }
    }
}

impl core::fmt::Display for Address {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        IpAddr::from(*self).fmt(f)
    }
}

/// A port. In host byte order, unlike in packets: `bpftool map dump` then prints the number that people know.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Pod, Zeroable)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(transparent)]
pub struct Port {
    /// The number, in host byte order.
    pub number: u16,
}

impl Port {
    /// No port: a record that is not in use.
    pub const NONE: Self = Self::new(0);

    /// From a number in host byte order.
    #[inline(always)]
    pub const fn new(number: u16) -> Self {
        Self { number }
    }

    /// The number in host byte order.
    #[inline(always)]
    pub const fn get(self) -> u16 {
        self.number
    }

    /// From network byte order, as packets and socket contexts have it.
    #[inline(always)]
    pub const fn from_network(port: u16) -> Self {
        Self { number: u16::from_be(port) }
    }

    /// In network byte order.
    #[inline(always)]
    pub const fn to_network(self) -> u16 {
        self.number.to_be()
    }
}

impl core::fmt::Display for Port {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.get().fmt(f)
    }
}

/// A transport protocol that Services use (`spec.ports[].protocol`); the value is the IANA protocol number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(u8)]
pub enum Protocol {
    /// TCP, 6.
    Tcp = 6,
    /// UDP, 17.
    Udp = 17,
    /// SCTP, 132: not served. No hook of sockets sees it, and those of packets leave it alone.
    Sctp = 132,
}

impl Protocol {
    /// The name as Kubernetes writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }

    /// From the IANA protocol number.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            132 => Some(Self::Sctp),
            _ => None,
        }
    }
}

impl core::fmt::Display for Protocol {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(self.name())
    }
}

/// What an address is to this node: bits of ADDRESSES.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Pod, Zeroable)]
#[repr(transparent)]
pub struct AddressBits {
    /// The bits.
    pub bits: u32,
}

impl AddressBits {
    /// Nothing of ours.
    pub const NONE: Self = Self { bits: 0 };
    /// A Service's ClusterIP: an unknown port of it is refused (PO-13).
    pub const CLUSTER_IP: Self = Self { bits: 1 };
    /// A LoadBalancer IP or external IP: an unknown port of it is left alone (PO-20).
    pub const VIP: Self = Self { bits: 2 };
    /// An address of this node: NodePorts are answered on it, and it is never refused.
    pub const NODE: Self = Self { bits: 4 };
    /// Of the "any" address of a family, which nobody has: the family's loopback addresses answer no NodePorts (CF-8,
    /// CF-11).
    pub const SILENT_LOOPBACK: Self = Self { bits: 8 };

    /// Whether all bits of `other` are set.
    #[inline(always)]
    pub const fn has(self, other: Self) -> bool {
        self.bits & other.bits == other.bits
    }

    /// Whether no bit is set.
    pub const fn is_none(self) -> bool {
        self.bits == 0
    }

    /// Both sets of bits.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self { bits: self.bits | other.bits }
    }
}

/// A value of ADDRESSES. Read as one 64-bit word.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct AddressEntry {
    /// What the address is.
    pub kind: AddressBits,
    /// [`Address::fingerprint`] of the key: a mismatch means that the element was reused while it was read.
    pub fingerprint: u32,
}

impl AddressEntry {
    /// The value for `address`.
    pub const fn new(address: &Address, bits: AddressBits) -> Self {
        Self { kind: bits, fingerprint: address.fingerprint() }
    }
}

/// Words of ADDRESS_FILTER: a power of two. Sixteen kilobytes, which stay in a processor's first cache; with ten thousand
/// Services one in thirteen other addresses has somebody's bit, and is looked up.
pub const FILTER_WORDS: u32 = 1 << 11;

impl Address {
    /// Thirty-two bits that depend on every bit of the address.
    #[inline(always)]
    pub const fn fingerprint(&self) -> u32 {
        self.fingerprint_with(0)
    }

    /// Which word of ADDRESS_FILTER the address has a bit in, and the bit.
    #[inline(always)]
    pub const fn filter_bit(&self) -> (u32, u64) {
        let hash = self.fingerprint();
        (hash >> (32 - FILTER_WORDS.trailing_zeros()), 1 << (hash >> 6 & 63))
    }

    /// Thirty-two bits that depend on every bit of the address and of `rest`: a multilinear hash. It tells
    /// reused table elements apart, nothing more.
    #[inline(always)]
    pub(crate) const fn fingerprint_with(&self, rest: u64) -> u32 {
        let [high, low]: [u64; 2] = must_cast(self.bytes);
        let sum = high
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .wrapping_add(low.wrapping_mul(0xc2b2_ae3d_27d4_eb4f))
            .wrapping_add(rest.wrapping_mul(0x1656_67b1_9e37_79f9));
        (sum >> 32) as u32
    }
}

const _: () = assert!(size_of::<Address>() == 16);
const _: () = assert!(size_of::<AddressEntry>() == 8);

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        text.parse::<IpAddr>().expect("a valid address").into()
    }

    #[test]
    fn words_round_trip_in_network_byte_order() {
        let a = address("2001:db8::1:2");
        assert_eq!(Address::from_words(a.words()), a);
        assert_eq!(a.words()[0], 0x2001_0db8_u32.to_be());
    }

    #[test]
    fn loopback_is_127_slash_8_one_and_the_unspecified_addresses() {
        for text in ["127.0.0.1", "127.255.255.255", "0.0.0.0", "::1", "::"] {
            assert!(address(text).is_loopback(), "{text}");
        }
        for text in ["128.0.0.1", "10.0.0.127", "::2", "fe80::1", "1::", "0.0.0.1"] {
            assert!(!address(text).is_loopback(), "{text}");
        }
    }

    #[test]
    fn the_any_addresses_are_nobodys() {
        for (text, nobodys) in
            [("0.0.0.0", true), ("::", true), ("0.0.0.1", false), ("::1", false), ("fd00::", false)]
        {
            assert_eq!(address(text).is_unspecified(), nobodys, "{text}");
        }
    }

    #[test]
    fn a_port_keeps_its_number() {
        assert_eq!(Port::new(443).get(), 443);
        assert_eq!(Port::new(443).to_network().to_ne_bytes(), [1, 187]);
        assert_eq!(Port::from_network(Port::new(443).to_network()), Port::new(443));
    }
}
