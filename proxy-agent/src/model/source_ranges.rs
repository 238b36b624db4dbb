//! Reading `spec.loadBalancerSourceRanges`.

use proxy_common::SourceRange;
use serde::{Deserialize, Serialize};

use super::{Flaws, address};

/// Who may use a Service's LoadBalancer IPs, as written: every range that can be read, in both families.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SourceRanges {
    /// The ranges, sorted.
    pub ranges: Box<[SourceRange]>,
    /// Whether others were written that cannot be read. Of which family they were meant to be nobody knows.
    pub unreadable: bool,
}

impl SourceRanges {
    /// Reads what is written; each range that cannot be read is named. Nothing where nothing is written, which
    /// is nearly everywhere.
    pub(super) fn read(written: &[String], flaws: &mut Flaws) -> Option<Box<Self>> {
        if written.is_empty() {
            return None;
        }
        let mut ranges = Vec::with_capacity(written.len());
        let mut unreadable = false;
        for (index, range) in written.iter().enumerate() {
            if let Some(range) = parse(range) {
                ranges.push(range);
                continue;
            }
            unreadable = true;
            flaws.add(
                || format!("spec.loadBalancerSourceRanges[{index}]"),
                || {
                    format!(
                        "`{range}` is not a range of addresses, so it admits no client, and an IP family \
                         without a valid range admits none at all; write one such as 10.0.0.0/8"
                    )
                },
            );
        }
        ranges.sort_unstable();
        ranges.dedup();
        Some(Box::new(Self { ranges: ranges.into(), unreadable }))
    }
}

/// ST-1: white space around a range does not matter.
fn parse(range: &str) -> Option<SourceRange> {
    let (ip, length) = range.trim().split_once('/')?;
    if length.is_empty() || !length.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    SourceRange::new(address::parse(ip)?, length.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ST-1: white space, host bits, doubles; and what is no range is named.
    #[test]
    fn ranges_are_read_one_by_one() {
        for (written, read, flawed) in [
            (&["10.0.0.0/8"][..], &["10.0.0.0/8"][..], &[][..]),
            (&[" 10.0.0.0/8 ", "\t192.0.2.0/24\n"], &["10.0.0.0/8", "192.0.2.0/24"], &[]),
            (&["10.1.2.3/8", "10.0.0.0/8"], &["10.0.0.0/8"], &[]),
            (&["fd00::/8", "0.0.0.0/0"], &["0.0.0.0/0", "fd00::/8"], &[]),
            (
                &["10.0.0.0/33", "10.0.0.0", "", "x/8", "10.0.0.0/", "10.0.0.0/+8", "::/129"],
                &[],
                &[0, 1, 2, 3, 4, 5, 6],
            ),
            (&["nonsense/8", "10.0.0.0/8"], &["10.0.0.0/8"], &[0]),
        ] {
            let written: Vec<String> = written.iter().map(ToString::to_string).collect();
            let mut flaws = Flaws::default();
            let SourceRanges { ranges, unreadable } =
                *SourceRanges::read(&written, &mut flaws).expect("some");
            let ranges: Vec<String> = ranges.iter().map(ToString::to_string).collect();
            assert_eq!(ranges, read, "{written:?}");
            assert_eq!(unreadable, !flawed.is_empty(), "{written:?}");
            let fields: Vec<String> = flaws.finish().iter().map(|flaw| flaw.field.to_string()).collect();
            let expected: Vec<String> =
                flawed.iter().map(|index| format!("spec.loadBalancerSourceRanges[{index}]")).collect();
            assert_eq!(fields, expected, "{written:?}");
        }
        assert_eq!(SourceRanges::read(&[], &mut Flaws::default()), None);
    }
}
