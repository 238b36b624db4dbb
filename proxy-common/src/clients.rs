//! CLIENTS: by which addresses a network namespace is judged where there are source ranges (ST-8).

use core::net::IpAddr;

use bytemuck::{Pod, Zeroable};

use crate::address::Address;

/// A value of CLIENTS. The key is the namespace's cookie, which is never used again.
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

const _: () = assert!(size_of::<ClientAddresses>() == 24);

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        text.parse::<IpAddr>().expect("a valid address").into()
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
