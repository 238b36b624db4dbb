//! `loadBalancerSourceRanges` (ST-1): do they restrict anyone?

use super::{Restricted, address};

/// Which families the ranges really restrict. The second value is the index of each entry that cannot be
/// read; such an entry restricts both families, since a filter with a typo must not let everyone in.
pub(super) fn restricted(ranges: &[String]) -> (Restricted, Vec<usize>) {
    let mut unreadable = Vec::new();
    let (mut v4, mut v6) = (Seen::default(), Seen::default());
    for (index, range) in ranges.iter().enumerate() {
        match parse(range) {
            Some((is_v4, length)) => {
                let family = if is_v4 { &mut v4 } else { &mut v6 };
                family.some = true;
                family.everyone |= length == 0;
            }
            None => unreadable.push(index),
        }
    }
    let typo = !unreadable.is_empty();
    (Restricted { v4: v4.restricts(typo), v6: v6.restricts(typo) }, unreadable)
}

/// What the ranges of one family say.
#[derive(Default)]
struct Seen {
    some: bool,
    everyone: bool,
}

impl Seen {
    /// A `/0` lets everyone in; ranges of the other family alone say nothing about this one.
    fn restricts(&self, typo: bool) -> bool {
        (self.some || typo) && !self.everyone
    }
}

/// Whether the range is IPv4, and its prefix length.
fn parse(range: &str) -> Option<(bool, u8)> {
    let (ip, length) = range.trim().split_once('/')?;
    let is_v4 = address::parse(ip)?.is_v4();
    let length = length.parse::<u8>().ok()?;
    (length <= if is_v4 { 32 } else { 128 }).then_some((is_v4, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ST-1: white space, `/0`, and ranges of the other family.
    #[test]
    fn only_real_ranges_of_a_family_restrict_it() {
        for (ranges, v4, v6, unreadable) in [
            (&[][..], false, false, 0),
            (&["10.0.0.0/8"], true, false, 0),
            (&[" 10.0.0.0/8 "], true, false, 0),
            (&["fd00::/8"], false, true, 0),
            (&["10.0.0.0/8", "0.0.0.0/0"], false, false, 0),
            (&["10.0.0.0/8", "::/0"], true, false, 0),
            (&["10.0.0.0/33"], true, true, 1),
            (&["10.0.0.0"], true, true, 1),
            (&["nonsense/8", "0.0.0.0/0"], false, true, 1),
        ] {
            let ranges: Vec<String> = ranges.iter().map(ToString::to_string).collect();
            let (restricted, bad) = restricted(&ranges);
            assert_eq!(restricted, Restricted { v4, v6 }, "{ranges:?}");
            assert_eq!(bad.len(), unreadable, "{ranges:?}");
        }
    }
}
