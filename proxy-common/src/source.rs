//! Who may use a LoadBalancer IP (`spec.loadBalancerSourceRanges`, ST-1): SOURCE_RANGES and CLIENTS.
//!
//! A Service's ranges are a **set** with a number of its own. Its record names the set, so that one store turns
//! a Service from one set to another; a set is whole before a record names it, and goes when no program can still
//! be reading it.

use core::net::IpAddr;

use bytemuck::{Pod, Zeroable};

use crate::address::Address;

/// A range of client addresses.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SourceRange {
    /// The first address; bits beyond `length` are zero.
    network: Address,
    /// How many bits of the sixteen bytes count: of an IPv4 range 96 more than written.
    length: u8,
}

impl SourceRange {
    /// How many bits of an address in sixteen bytes say that it is IPv4.
    const V4_BITS: u8 = 96;

    /// The range of `length` bits, as written, around `address`; nothing for more bits than there are.
    pub const fn new(address: Address, length: u8) -> Option<Self> {
        let (most, offset) = if address.is_v4() { (32, Self::V4_BITS) } else { (128, 0) };
        if length > most {
            return None;
        }
        let length = length + offset;
        let mask = if length == 0 { 0 } else { u128::MAX << (128 - length) };
        let bytes = (u128::from_be_bytes(address.bytes) & mask).to_be_bytes();
        Some(Self { network: Address { bytes }, length })
    }

    /// The range of one address.
    pub const fn one(address: Address) -> Self {
        Self { network: address, length: 128 }
    }

    /// Whether it is of IPv4.
    pub const fn is_v4(&self) -> bool {
        self.network.is_v4() && self.length >= Self::V4_BITS
    }

    /// Whether it is all of its family.
    pub const fn is_everyone(&self) -> bool {
        self.length == if self.is_v4() { Self::V4_BITS } else { 0 }
    }

    /// Whether `address` is in it.
    pub fn contains(&self, address: Address) -> bool {
        let mask = if self.length == 0 { 0 } else { u128::MAX << (128 - self.length) };
        u128::from_be_bytes(address.bytes) & mask == u128::from_be_bytes(self.network.bytes)
    }

    /// The prefix length and the rest of its key in SOURCE_RANGES.
    pub const fn key(&self, service: u32, set: u16) -> (u32, SourceKey) {
        (SourceKey::OWNER_BITS + self.length as u32, SourceKey::new(service, set, self.network))
    }

    /// The range that a key in SOURCE_RANGES stands for; nothing for a key that no version of us wrote.
    pub fn from_key(prefix_length: u32, key: &SourceKey) -> Option<Self> {
        let length = u8::try_from(prefix_length.checked_sub(SourceKey::OWNER_BITS)?).ok()?;
        (length <= 128).then_some(Self { network: key.address, length })
    }
}

impl core::fmt::Display for SourceRange {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let offset = if self.is_v4() { Self::V4_BITS } else { 0 };
        write!(f, "{}/{}", self.network, self.length - offset)
    }
}

/// What follows the prefix length in a key of SOURCE_RANGES. The trie compares it bit by bit from the first
/// byte: which set is always compared whole, so its byte order does not matter; the address is in network order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct SourceKey {
    /// Index into SERVICES.
    pub service: u32,
    /// Which set of the Service's; never 0.
    pub set: u16,
    /// Zero.
    pub padding: u16,
    /// The client's address, or the first of a range.
    pub address: Address,
}

impl SourceKey {
    /// Bits before the address.
    pub const OWNER_BITS: u32 = 64;
    /// The prefix length of a lookup: all there is.
    pub const ALL_BITS: u32 = Self::OWNER_BITS + 128;

    /// The key of an address in a set of a Service's.
    #[inline(always)]
    pub const fn new(service: u32, set: u16, address: Address) -> Self {
        Self { service, set, padding: 0, address }
    }
}

/// A value of CLIENTS: by which addresses a network namespace is judged (ST-8). The key is the namespace's
/// cookie, which is never used again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct ClientAddresses {
    /// In IPv6; `::` for none.
    pub v6: Address,
    /// In IPv4, in network byte order; 0.0.0.0 for none.
    pub v4: [u8; 4],
    /// [`ClientAddresses::fingerprint`]: a mismatch means that the element was reused while it was read.
    pub checksum: u32,
}

impl ClientAddresses {
    /// The value for the namespace with this cookie. Addresses of the other family count as none.
    pub fn new(cookie: u64, v4: Option<Address>, v6: Option<Address>) -> Self {
        let v4 = v4.filter(Address::is_v4).unwrap_or(Address::ANY_V4);
        let v6 = v6.filter(|address| !address.is_v4()).unwrap_or(Address::ANY_V6);
        let [.., a, b, c, d] = v4.bytes;
        let value = Self { v6, v4: [a, b, c, d], checksum: 0 };
        Self { checksum: value.fingerprint(cookie), ..value }
    }

    /// Whether this is whole, and the value for `cookie`.
    #[inline(always)]
    pub const fn is_of(&self, cookie: u64) -> bool {
        self.checksum == self.fingerprint(cookie)
    }

    /// The address of the family of `destination`.
    #[inline(always)]
    pub fn for_destination(&self, destination: &Address) -> Option<Address> {
        let address = if destination.is_v4() { Address::from_v4(self.v4) } else { self.v6 };
        (!address.is_unspecified()).then_some(address)
    }

    #[inline(always)]
    const fn fingerprint(&self, cookie: u64) -> u32 {
        let v4 = u32::from_ne_bytes(self.v4) as u64;
        self.v6.fingerprint_with(cookie.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ v4)
    }
}

impl core::fmt::Display for ClientAddresses {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} and {}", IpAddr::from(self.v4), self.v6)
    }
}

const _: () = assert!(size_of::<SourceKey>() == 24);
const _: () = assert!(size_of::<ClientAddresses>() == 24);

#[cfg(test)]
mod tests {
    extern crate std;

    use std::string::ToString;

    use super::*;

    fn address(text: &str) -> Address {
        text.parse::<IpAddr>().expect("a valid address").into()
    }

    fn range(text: &str) -> SourceRange {
        let (ip, length) = text.split_once('/').expect("a range");
        SourceRange::new(address(ip), length.parse().expect("a number")).expect("not too long")
    }

    /// ST-1: what a range holds, in both families.
    #[test]
    fn a_range_holds_the_addresses_that_share_its_bits() {
        for (text, written, inside, outside) in [
            ("10.1.2.3/8", "10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("10.0.0.1/32", "10.0.0.1/32", "10.0.0.1", "10.0.0.2"),
            ("192.0.2.128/25", "192.0.2.128/25", "192.0.2.255", "192.0.2.127"),
            ("0.0.0.0/0", "0.0.0.0/0", "198.51.100.1", "2001:db8::1"),
            ("2001:db8::/32", "2001:db8::/32", "2001:db8:1::", "2001:db9::"),
            ("2001:db8::1/128", "2001:db8::1/128", "2001:db8::1", "2001:db8::2"),
        ] {
            let range = range(text);
            assert_eq!(range.to_string(), written);
            assert!(range.contains(address(inside)), "{text} {inside}");
            assert!(!range.contains(address(outside)), "{text} {outside}");
            assert_eq!(range.is_everyone(), text.ends_with("/0"), "{text}");
            let (length, key) = range.key(7, 3);
            assert_eq!(SourceRange::from_key(length, &key), Some(range));
        }
        assert!(range("::/0").is_everyone() && !range("::/0").is_v4());
        assert_eq!(SourceRange::new(address("10.0.0.0"), 33), None);
        assert_eq!(SourceRange::new(address("::1"), 129), None);
        assert_eq!(SourceRange::one(address("10.0.0.1")), range("10.0.0.1/32"));
    }

    /// ST-8: a value that was torn, or is another namespace's, is told from a whole one.
    #[test]
    fn addresses_of_a_client_are_whole_or_not_taken() {
        let (v4, v6) = (address("10.244.1.10"), address("fd00::10"));
        let value = ClientAddresses::new(77, Some(v4), Some(v6));
        assert!(value.is_of(77) && !value.is_of(78));
        assert_eq!(value.for_destination(&address("203.0.113.7")), Some(v4));
        assert_eq!(value.for_destination(&address("2001:db8::7")), Some(v6));
        let torn =
            ClientAddresses { v6: ClientAddresses::new(78, None, Some(address("fd00::11"))).v6, ..value };
        assert!(!torn.is_of(77));
        assert!(!ClientAddresses { v4: [10, 244, 1, 11], ..value }.is_of(77));
        let none = ClientAddresses::new(77, None, None);
        assert_eq!(none.for_destination(&v4), None);
        assert_eq!(none.for_destination(&v6), None);
    }
}
