//! Orders a Service port's endpoints so that both of its sets are contiguous.

use std::ops::Range;

use super::{PlannedEndpoint, candidates::Candidate};

/// Endpoints in the order `only first | both | only second | serving, but in no set`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Arrangement {
    /// The endpoints.
    pub(super) endpoints: Vec<PlannedEndpoint>,
    /// Where the first set is.
    pub(super) first: Range<u32>,
    /// Where the second set is.
    pub(super) second: Range<u32>,
}

/// Arranges two sets of positions in `candidates`, each ascending. Equal sets get the same range.
pub(super) fn arrange(candidates: &[Candidate<'_>], first: &[u32], second: &[u32]) -> Arrangement {
    // Four groups, in the order of the result.
    let mut groups: [Vec<PlannedEndpoint>; 4] = Default::default();
    for (position, candidate) in (0..).zip(candidates) {
        let within = |set: &[u32]| set.binary_search(&position).is_ok();
        let group = match (within(first), within(second)) {
            (true, false) => 0,
            (true, true) => 1,
            (false, true) => 2,
            (false, false) if candidate.conditions.serving => 3,
            (false, false) => continue,
        };
        let Candidate { address, port, local, conditions, .. } = candidate;
        let (address, port, local) = (*address, *port, *local);
        groups[group].push(PlannedEndpoint { address, port, local, serving: conditions.serving });
    }
    let [only_first, both, only_second, _] = groups.each_ref().map(|group| count(group));
    Arrangement {
        first: 0..only_first + both,
        second: only_first..only_first + both + only_second,
        endpoints: groups.into_iter().flatten().collect(),
    }
}

/// Endpoints of one Service port are far fewer than 2^32.
fn count(group: &[PlannedEndpoint]) -> u32 {
    u32::try_from(group.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::testing;

    fn hosts(endpoints: &[PlannedEndpoint]) -> Vec<u8> {
        endpoints.iter().map(|endpoint| endpoint.address.bytes[15]).collect()
    }

    #[test]
    fn both_sets_are_contiguous_and_the_rest_follows_while_it_serves() {
        let states = ["ready", "ready", "ready", "unready", "gone", "ready"];
        let candidates: Vec<_> = (0..).zip(states).map(|(i, state)| testing::candidate(i, state)).collect();
        for (first, second, order, ranges) in [
            (&[0, 1][..], &[1, 2][..], &[0, 1, 2, 3, 5][..], (0..2, 1..3)),
            (&[2], &[0, 2], &[2, 0, 1, 3, 5], (0..1, 0..2)),
            (&[0, 5], &[0, 5], &[0, 5, 1, 2, 3], (0..2, 0..2)),
            (&[], &[1], &[1, 0, 2, 3, 5], (0..0, 0..1)),
            (&[0], &[1], &[0, 1, 2, 3, 5], (0..1, 1..2)),
            (&[], &[], &[0, 1, 2, 3, 5], (0..0, 0..0)),
        ] {
            let arrangement = arrange(&candidates, first, second);
            assert_eq!(hosts(&arrangement.endpoints), order, "{first:?} {second:?}");
            assert_eq!((arrangement.first, arrangement.second), ranges, "{first:?} {second:?}");
        }
    }
}
