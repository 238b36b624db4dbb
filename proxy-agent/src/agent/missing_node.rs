//! A node name that no Node object has (IN-5): then no endpoint is local, and the wrong addresses answer NodePorts.

use std::time::{Duration, Instant};

use crate::model::{Problem, Subject};

/// How long to wait for the Node after the Services, as kube-proxy does.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for the Node since everything else was known.
#[derive(Default, Debug)]
pub(super) struct NoNode {
    since: Option<Instant>,
}

impl NoNode {
    /// The problem at `now`, if there is one. `known` says whether the Node exists, `synced` whether everything else
    /// has arrived.
    pub(super) fn problem(&mut self, node: &str, synced: bool, known: bool, now: Instant) -> Option<Problem> {
        if known || !synced {
            self.since = None;
            return None;
        }
        let since = *self.since.get_or_insert(now);
        (now.duration_since(since) >= PATIENCE).then(|| Problem {
            subject: Subject::node(node),
            field: "metadata.name".to_owned(),
            message: "no such Node exists, so no endpoint is local, and the addresses of all interfaces answer \
                      NodePorts; start with the --node-name (or NODE_NAME, hostnameOverride) that `kubectl get \
                      nodes` shows"
                .to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// IN-5: a name without a Node is a problem after 30 seconds, until the Node exists.
    #[test]
    fn a_name_that_no_node_has_is_a_problem_until_one_has_it() {
        let (mut no_node, start) = (NoNode::default(), Instant::now());
        let mut at = |seconds, synced, known| {
            no_node.problem("n1", synced, known, start + Duration::from_secs(seconds))
        };
        assert_eq!(at(0, false, false), None);
        assert_eq!(at(40, false, false), None, "nothing is known yet");
        assert_eq!(at(50, true, false), None);
        assert_eq!(at(79, true, false), None);
        let found = at(80, true, false).expect("a problem");
        assert_eq!((found.subject, &*found.field), (Subject::node("n1"), "metadata.name"));
        assert_eq!(at(81, true, true), None, "it came");
        assert_eq!(at(90, true, false), None, "it left: 30 seconds again");
        assert!(at(120, true, false).is_some());
    }
}
