//! Which network namespaces are passed by, and why. Pure.

use std::collections::{BTreeMap, BTreeSet};

use proxy_common::{PassedBy, SocketWish};

/// What is known of a namespace.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Seen {
    /// Whether a wire leads to a device of the node's that serves what comes out of pods.
    pub(super) of_node: bool,
    /// Whether its rules redirect what its own processes send.
    pub(super) redirects: bool,
    /// Whether its route to Services is another than its default route.
    pub(super) routes: bool,
    /// The namespaces that its wires lead into.
    pub(super) behind: Vec<u64>,
    /// What its Pod says, if it does.
    pub(super) wish: Option<SocketWish>,
}

/// The reason for each that is passed by, by cookie.
pub(super) fn verdicts(seen: &BTreeMap<u64, Seen>) -> BTreeMap<u64, PassedBy> {
    // Those whose packets come out at a pod's device: pods, and from there on what is behind them.
    let mut served: BTreeSet<u64> =
        seen.iter().filter(|(_, seen)| seen.of_node).map(|(cookie, _)| *cookie).collect();
    let mut found = BTreeMap::new();
    loop {
        let is_behind = |seen: &Seen| seen.behind.iter().any(|other| served.contains(other));
        let nested: Vec<u64> = seen
            .iter()
            .filter(|(cookie, seen)| !served.contains(cookie) && is_behind(seen))
            .map(|(cookie, _)| *cookie)
            .collect();
        if nested.is_empty() {
            break;
        }
        found.extend(nested.iter().map(|cookie| (*cookie, PassedBy::Nested)));
        served.extend(nested);
    }
    for (cookie, seen) in seen.iter().filter(|(_, seen)| seen.of_node) {
        let detected = match (seen.redirects, seen.routes) {
            (true, _) => Some(PassedBy::Redirects),
            (false, true) => Some(PassedBy::Routes),
            (false, false) => None,
        };
        let wanted = match seen.wish {
            Some(SocketWish::Serve) => None,
            Some(SocketWish::PassBy(why)) => Some(why),
            None => detected,
        };
        if let Some(why) = wanted {
            found.insert(*cookie, why);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Seen {
        Seen { of_node: true, ..Seen::default() }
    }

    fn behind(others: &[u64]) -> Seen {
        Seen { behind: others.to_vec(), ..Seen::default() }
    }

    /// PO-25: whatever is behind a pod, however deep; a pod that leads to others is still the node's.
    #[test]
    fn what_is_behind_a_pod_is_nested() {
        let inner = Seen { behind: vec![2, 3], ..pod() };
        let seen = [(1, inner), (2, behind(&[1, 3])), (3, behind(&[2])), (4, pod()), (5, Seen::default())];
        let expected = [(2, PassedBy::Nested), (3, PassedBy::Nested)];
        assert_eq!(verdicts(&seen.into()), expected.into());
    }

    /// Namespaces of another machine's lab lead to each other, and not to this node: nobody would translate their packets.
    #[test]
    fn what_leads_to_no_pod_is_left_as_it_is() {
        let seen = [(1, behind(&[2])), (2, behind(&[1])), (3, behind(&[9]))];
        assert_eq!(verdicts(&seen.into()), BTreeMap::new());
        let redirects = Seen { redirects: true, routes: true, ..Seen::default() };
        assert_eq!(verdicts(&[(1, redirects)].into()), BTreeMap::new());
    }

    /// PO-26.
    #[test]
    fn a_pod_that_redirects_or_routes_by_itself_is_passed_by() {
        let seen = [
            (1, Seen { redirects: true, ..pod() }),
            (2, Seen { routes: true, ..pod() }),
            (3, Seen { redirects: true, routes: true, ..pod() }),
            (4, pod()),
        ];
        let expected = [(1, PassedBy::Redirects), (2, PassedBy::Routes), (3, PassedBy::Redirects)];
        assert_eq!(verdicts(&seen.into()), expected.into());
    }

    #[test]
    fn what_a_pod_says_counts_more_than_what_was_seen() {
        let redirects = Seen { redirects: true, ..pod() };
        let seen = [
            (1, Seen { wish: Some(SocketWish::Serve), ..redirects.clone() }),
            (2, Seen { wish: Some(SocketWish::PassBy(PassedBy::Annotated)), ..redirects }),
            (3, Seen { wish: Some(SocketWish::PassBy(PassedBy::Runtime)), ..pod() }),
            (4, Seen { wish: Some(SocketWish::PassBy(PassedBy::Annotated)), ..Seen::default() }),
        ];
        let expected = [(2, PassedBy::Annotated), (3, PassedBy::Runtime)];
        assert_eq!(verdicts(&seen.into()), expected.into());
    }
}
