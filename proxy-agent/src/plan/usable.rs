//! Which endpoints may take new connections? One set for each traffic policy.

use super::{candidates::Candidate, topology, view::View};

/// EP-8: the set of the policy Cluster, as positions in `candidates`: what is ready, narrowed by hints;
/// if nothing is ready anywhere, what is terminating but still serving.
pub(super) fn cluster_set(candidates: &[Candidate<'_>], view: View<'_>) -> Vec<u32> {
    let ready = positions(candidates, is_ready);
    if ready.is_empty() {
        return positions(candidates, is_last_resort);
    }
    topology::narrow(candidates, ready, view)
}

/// EP-9: the set of the policy Local: the same among local endpoints, by its own decision, without hints.
pub(super) fn local_set(candidates: &[Candidate<'_>]) -> Vec<u32> {
    let ready = positions(candidates, |candidate| candidate.local && is_ready(candidate));
    if ready.is_empty() {
        return positions(candidates, |candidate| candidate.local && is_last_resort(candidate));
    }
    ready
}

/// EP-10: whether a refusal is for want of endpoints or for want of local ones.
pub(super) fn has_any(candidates: &[Candidate<'_>]) -> bool {
    candidates.iter().any(|candidate| is_ready(candidate) || is_last_resort(candidate))
}

fn is_ready(candidate: &Candidate<'_>) -> bool {
    candidate.conditions.ready
}

fn is_last_resort(candidate: &Candidate<'_>) -> bool {
    candidate.conditions.serving && candidate.conditions.terminating
}

fn positions<'a>(candidates: &[Candidate<'a>], wanted: impl Fn(&Candidate<'a>) -> bool) -> Vec<u32> {
    (0..).zip(candidates).filter(|(_, candidate)| wanted(candidate)).map(|(position, _)| position).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::testing;

    /// EP-8, EP-9, EP-10: ready before terminating, each policy by itself.
    #[test]
    fn ready_endpoints_come_before_terminating_ones() {
        for (states, cluster, local, any) in [
            (&[][..], &[][..], &[][..], false),
            (&["ready", "ready local"], &[0, 1], &[1], true),
            (&["ready", "unready"], &[0], &[], true),
            (&["unready", "unready local"], &[], &[], false),
            (&["ready", "terminating"], &[0], &[], true),
            (&["terminating", "terminating local"], &[0, 1], &[1], true),
            (&["ready", "terminating local"], &[0], &[1], true),
            (&["ready local", "terminating local"], &[0], &[0], true),
            (&["gone", "gone local"], &[], &[], false),
            // publishNotReadyAddresses: ready although terminating (EP-4).
            (&["ready terminating", "terminating"], &[0], &[], true),
        ] {
            let candidates: Vec<_> =
                (1..).zip(states).map(|(i, state)| testing::candidate(i, state)).collect();
            assert_eq!(cluster_set(&candidates, testing::view()), cluster, "{states:?}");
            assert_eq!(local_set(&candidates), local, "{states:?}");
            assert_eq!(has_any(&candidates), any, "{states:?}");
        }
    }
}
