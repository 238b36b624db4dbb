//! SOURCE_RANGES: the clients that may use a LoadBalancer IP (`spec.loadBalancerSourceRanges`, ST-1).
//!
//! A Service's ranges are a **set** with a number of its own. Its record names the set, so one store switches a
//! Service from one set to another. The agent completes a set before a record names it, and removes it after a grace
//! period.

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
    pub const fn key(&self, service: u32, set: u16) -> (u32, SourceRangeKey) {
        (SourceRangeKey::OWNER_BITS + self.length as u32, SourceRangeKey::new(service, set, self.network))
    }

    /// The range that a key in SOURCE_RANGES stands for; nothing for a key that no version of us wrote.
    pub fn from_key(prefix_length: u32, key: &SourceRangeKey) -> Option<Self> {
        let length = u8::try_from(prefix_length.checked_sub(SourceRangeKey::OWNER_BITS)?).ok()?;
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
pub struct SourceRangeKey {
    /// Index into SERVICES.
    pub service: u32,
    /// Which set of the Service's; never 0.
    pub set: u16,
    /// Zero.
    pub padding: u16,
    /// The client's address, or the first of a range.
    pub address: Address,
}

impl SourceRangeKey {
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

const _: () = assert!(size_of::<SourceRangeKey>() == 24);

#[cfg(test)]
mod tests {
    extern crate std;

    use core::net::IpAddr;
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
}
