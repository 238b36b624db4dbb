//! Ranges of addresses that are equal if the same addresses are in them, however they are written.

use std::{fmt, net::IpAddr};

use proxy_common::Address;

/// Addresses from the first to the last, as numbers.
type Range = (u128, u128);
/// The bits of IPv4 addresses that are all the same.
const V4: u32 = 96;

/// A set of addresses, as ranges in order with others in between.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Ranges(Vec<Range>);

impl Ranges {
    /// From the first address of each range to the last.
    pub(crate) fn new(ranges: impl IntoIterator<Item = (Address, Address)>) -> Self {
        let number = |address: Address| u128::from_be_bytes(address.bytes);
        let mut all: Vec<Range> =
            ranges.into_iter().map(|(first, last)| (number(first), number(last))).collect();
        all.sort_unstable();
        let mut merged: Vec<Range> = Vec::with_capacity(all.len());
        for (first, last) in all {
            match merged.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                _ => merged.push((first, last)),
            }
        }
        Self(merged)
    }

    /// All addresses with the first `length` bits of this one.
    pub(crate) fn prefix(address: Address, length: u32) -> (Address, Address) {
        let mask = u128::MAX.checked_shr(length).unwrap_or(0);
        let number = u128::from_be_bytes(address.bytes);
        (Address { bytes: (number & !mask).to_be_bytes() }, Address { bytes: (number | mask).to_be_bytes() })
    }

    /// Whether all addresses of a family are in it.
    pub(crate) fn has_all(&self, v4: bool) -> bool {
        let all = Self::prefix(IpAddr::from([0, 0, 0, 0]).into(), V4);
        let all = if v4 { all } else { (Address { bytes: [0; 16] }, Address { bytes: [0xff; 16] }) };
        *self == Self::new([all])
    }

    /// The same with one more address.
    pub(crate) fn with(&self, address: Address) -> Self {
        let number = u128::from_be_bytes(address.bytes);
        let all = self.0.iter().copied().chain([(number, number)]);
        let address = |number: u128| Address { bytes: number.to_be_bytes() };
        Self::new(all.map(|(first, last)| (address(first), address(last))))
    }
}

/// As the fewest prefixes.
impl fmt::Display for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        let mut between = "";
        for (mut first, last) in self.0.iter().copied() {
            loop {
                // As many as begin here: limited by where it begins, and by where it ends.
                let span = (last - first).checked_add(1).map_or(128, u128::ilog2);
                let bits = first.trailing_zeros().min(span).min(128);
                let address = Address { bytes: first.to_be_bytes() };
                let length = 128 - bits;
                let length = if address.is_v4() { length.saturating_sub(V4) } else { length };
                write!(f, "{between}{address}/{length}")?;
                between = ", ";
                let size = 1_u128.checked_shl(bits).unwrap_or(0);
                match first.checked_add(size) {
                    Some(next) if size > 0 && next <= last => first = next,
                    _ => break,
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(texts: &[&str]) -> Ranges {
        Ranges::new(texts.iter().map(|text| {
            let (address, length) = text.split_once('/').expect("a prefix");
            let address: IpAddr = address.parse().expect("an address");
            let offset = if address.is_ipv4() { V4 } else { 0 };
            Ranges::prefix(address.into(), offset + length.parse::<u32>().expect("a length"))
        }))
    }

    #[test]
    fn the_same_addresses_are_the_same_ranges() {
        assert_eq!(ranges(&["10.0.0.0/9", "10.128.0.0/9", "10.1.0.0/16"]), ranges(&["10.0.0.0/8"]));
        assert_ne!(ranges(&["10.0.0.0/9"]), ranges(&["10.0.0.0/8"]));
        assert!(ranges(&["0.0.0.0/1", "128.0.0.0/1"]).has_all(true) && ranges(&["::/0"]).has_all(false));
        assert!(!ranges(&["0.0.0.0/0"]).has_all(false));
        let one: IpAddr = "10.0.0.1".parse().expect("an address");
        assert_eq!(ranges(&["10.0.0.0/32"]).with(one.into()), ranges(&["10.0.0.0/31"]));
    }

    #[test]
    fn they_are_written_as_prefixes() {
        for (texts, written) in [
            (&["198.51.100.0/25", "192.0.2.100/32"][..], "192.0.2.100/32, 198.51.100.0/25"),
            (&["10.0.0.0/25", "10.0.0.128/26"], "10.0.0.0/25, 10.0.0.128/26"),
            (&["2001:db8::/32"], "2001:db8::/32"),
            (&["0.0.0.0/0"], "0.0.0.0/0"),
            (&["::/0"], "::/0"),
            (&[], "none"),
        ] {
            assert_eq!(ranges(texts).to_string(), written);
        }
    }
}
