//! A range of source ports, as a person writes it.

use std::{fmt, str::FromStr};

use super::set::PortSet;

/// Ports from the first to the last, both included; never empty, and none that needs a privilege.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PortRange {
    first: u16,
    last: u16,
}

/// Why a range cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("`{text}` {why}")]
pub struct BadRange {
    text: String,
    why: &'static str,
}

impl PortRange {
    /// Below it, ports need a privilege, and Services of the node itself live there.
    const LOWEST: u16 = 1024;
    /// NodePorts, unless the API server was told otherwise.
    const NODE_PORTS: Self = Self { first: 30_000, last: 32_767 };

    /// The first port.
    pub const fn first(self) -> u16 {
        self.first
    }

    /// How many there are; at least one.
    pub const fn count(self) -> u16 {
        // Without the 1,024 lowest there are fewer than 2^16.
        self.last - self.first + 1
    }

    const fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    pub(crate) fn set(self) -> PortSet {
        PortSet::range(self.first, self.last)
    }

    /// Any ports, for what the kernel says of itself.
    pub(crate) const fn of_kernel(first: u16, last: u16) -> Self {
        Self { first, last }
    }
}

impl Default for PortRange {
    /// The ports that IANA leaves to everyone. Linux gives its own connections those from 32768 to 60999, of which
    /// more than half are left.
    fn default() -> Self {
        Self { first: 49_152, last: 65_535 }
    }
}

impl FromStr for PortRange {
    type Err = BadRange;

    fn from_str(text: &str) -> Result<Self, BadRange> {
        let bad = |why| BadRange { text: text.to_owned(), why };
        let (first, last) =
            text.split_once('-').ok_or(bad("is not a range of ports; write one such as 49152-65535"))?;
        let port = |text: &str| text.trim().parse::<u16>();
        let (Ok(first), Ok(last)) = (port(first), port(last)) else {
            return Err(bad("is not a range of ports; write one such as 49152-65535"));
        };
        let range = Self { first, last };
        if first > last {
            Err(bad("is empty: the first port is higher than the last"))
        } else if first < Self::LOWEST {
            Err(bad("includes ports below 1024, which belong to the node's own services"))
        } else if range.overlaps(Self::NODE_PORTS) {
            Err(bad("overlaps 30000-32767, the range of NodePorts"))
        } else {
            Ok(range)
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_reads_as_it_is_written() {
        for (text, first, count) in
            [("49152-65535", 49_152, 16_384), ("2000-2000", 2000, 1), ("32768-65535", 32_768, 32_768)]
        {
            let range: PortRange = text.parse().expect(text);
            assert_eq!((range.first(), range.count(), range.to_string()), (first, count, text.to_owned()));
        }
        assert_eq!("49152-65535".parse(), Ok(PortRange::default()));
    }

    #[test]
    fn what_cannot_be_a_range_is_refused_with_the_reason() {
        for (text, part) in [
            ("", "not a range"),
            ("50000", "not a range"),
            ("50000-70000", "not a range"),
            ("-1-5", "not a range"),
            ("50001-50000", "is empty"),
            ("1023-2000", "below 1024"),
            ("32767-40000", "NodePorts"),
            ("29000-40000", "NodePorts"),
        ] {
            let error = text.parse::<PortRange>().expect_err(text).to_string();
            assert!(error.contains(part) && error.contains(&format!("`{text}`")), "{text}: {error}");
        }
    }
}
