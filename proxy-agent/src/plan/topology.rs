//! Hints: which of the ready endpoints are meant for this node? (EP-11)

use super::{candidates::Candidate, view::View};

/// EP-11: those meant for this node, else those meant for its zone, else all. A mode counts only if every
/// ready endpoint has its hint and at least one names this node, or zone: one missing hint means that the
/// controller is not done. `ready` are positions in `candidates`, and so is the result.
///
/// Hints alone decide: `spec.trafficDistribution` and annotations are the controller's business (EP-12).
pub(super) fn narrow(candidates: &[Candidate<'_>], ready: Vec<u32>, view: View<'_>) -> Vec<u32> {
    let node = meant_for(candidates, &ready, Some(view.node), |candidate| {
        candidate.hints.map_or(&[], |hints| &*hints.nodes)
    });
    if let Some(for_node) = node {
        return for_node;
    }
    let zone = meant_for(candidates, &ready, view.zone, |candidate| {
        candidate.hints.map_or(&[], |hints| &*hints.zones)
    });
    zone.unwrap_or(ready)
}

/// The ready endpoints whose hint names `own`, if the mode counts.
fn meant_for<'a>(
    candidates: &'a [Candidate<'_>],
    ready: &[u32],
    own: Option<&str>,
    hint: impl Fn(&'a Candidate<'_>) -> &'a [Box<str>],
) -> Option<Vec<u32>> {
    let own = own?;
    let mut named = Vec::new();
    for &position in ready {
        let names = hint(candidates.get(position as usize)?);
        if names.is_empty() {
            return None;
        }
        if names.iter().any(|name| **name == *own) {
            named.push(position);
        }
    }
    (!named.is_empty()).then_some(named)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::Hints, plan::testing};

    /// EP-11. Each endpoint is written `nodes/zones`, or nothing for no hints; the node is `n1` in zone `a`.
    #[test]
    fn hints_narrow_only_when_complete() {
        for (why, endpoints, zone, expected) in [
            ("no hints", &["", ""][..], Some("a"), &[0, 1][..]),
            ("own zone", &["/a", "/b"], Some("a"), &[0]),
            ("a zone among several", &["/b", "/b,a"], Some("a"), &[1]),
            ("one zone hint is missing", &["/a", "/b", ""], Some("a"), &[0, 1, 2]),
            ("nothing in the own zone", &["/b", "/c"], Some("a"), &[0, 1]),
            ("the node has no zone", &["/a", "/b"], None, &[0, 1]),
            ("own node before own zone", &["n1/a", "n2/a"], Some("a"), &[0]),
            ("own node without a zone", &["n1/a", "n2/a"], None, &[0]),
            ("not on the own node, but in the own zone", &["n2/a", "n3/b"], Some("a"), &[0]),
            ("one node hint is missing: zones count", &["n1/a", "/a", "n3/b"], Some("a"), &[0, 1]),
        ] {
            let hints: Vec<Option<Hints>> = endpoints
                .iter()
                .map(|text| {
                    let (nodes, zones) = text.split_once('/')?;
                    let names =
                        |list: &str| list.split(',').filter(|n| !n.is_empty()).map(Into::into).collect();
                    Some(Hints { nodes: names(nodes), zones: names(zones) })
                })
                .collect();
            let candidates: Vec<_> = (1_u8..)
                .zip(&hints)
                .map(|(i, hints)| Candidate { hints: hints.as_ref(), ..testing::candidate(i, "ready") })
                .collect();
            let all = (0..).take(candidates.len()).collect();
            let view = View { zone, ..testing::view() };
            assert_eq!(narrow(&candidates, all, view), expected, "{why}");
        }
    }
}
