//! Nothing is installed before every list is complete (IN-7), but the wait for the Node has a limit (IN-5).

use std::time::Duration;

use tokio::{sync::watch, time::sleep};

use super::{Batch, Event};
use crate::model::{Flaw, Kind, Subject};

/// How long the Node may come after the Services and EndpointSlices: as long as kube-proxy waits for it.
const PATIENCE: Duration = Duration::from_secs(30);

/// The kinds that Services are planned from. What Pods say is of no use before there are Services, and it may be withheld.
const NEEDED: [Kind; 3] = [Kind::Service, Kind::EndpointSlice, Kind::Node];

/// Waits for the first complete list of every kind.
#[derive(Debug)]
pub(super) struct StartGate {
    node: String,
    state: watch::Sender<State>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct State {
    /// Whether the first list of the kind, in the order of [`NEEDED`], is complete.
    listed: [bool; NEEDED.len()],
    open: bool,
}

impl State {
    /// Whether all lists are complete, but for that of this kind.
    fn has_all_but(self, spared: Option<Kind>) -> bool {
        NEEDED.into_iter().zip(self.listed).all(|(kind, listed)| listed || Some(kind) == spared)
    }
}

impl StartGate {
    /// Waits for all kinds, for the node of this name.
    pub(super) fn new(node: &str) -> Self {
        let (state, _) = watch::channel(State { listed: [false; NEEDED.len()], open: false });
        Self { node: node.to_owned(), state }
    }

    /// Notes a complete list. What to pass on: once, with the last list, that everything is known; and that the
    /// Node came after all.
    pub(super) fn listed(&self, kind: Kind) -> Batch {
        let mut said = Batch::new();
        if kind == Kind::Pod {
            said.push(Event::PodsListed);
        }
        self.state.send_modify(|state| {
            let late = state.open && kind == Kind::Node && !state.has_all_but(None);
            for (known, listed) in NEEDED.into_iter().zip(&mut state.listed) {
                *listed |= known == kind;
            }
            if late {
                said.push(self.of_node(Vec::new()));
            } else if !state.open && state.has_all_but(None) {
                state.open = true;
                said.push(Event::Synced);
            }
        });
        said
    }

    /// Waits for everything but the Node, and then a while for the Node. What to pass on: nothing, if it came.
    pub(super) async fn node_is_late(&self) -> Batch {
        let mut changes = self.state.subscribe();
        // An error would be that the gate is gone.
        let _ = changes.wait_for(|state| state.has_all_but(Some(Kind::Node))).await;
        sleep(PATIENCE).await;
        let opened = self.state.send_if_modified(|state| !std::mem::replace(&mut state.open, true));
        if !opened {
            return Batch::new();
        }
        let flaw = Flaw::new(
            "metadata",
            "cannot list the Node within 30 s: until then no endpoint is local, and the addresses of all \
             interfaces answer NodePorts; check that the agent's role may list and watch nodes",
        );
        vec![self.of_node(vec![flaw]), Event::Synced]
    }

    fn of_node(&self, flaws: Vec<Flaw>) -> Event {
        Event::Found { subject: Subject::node(&self.node), flaws }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// IN-7.
    #[test]
    fn the_gate_opens_once_with_the_last_list() {
        let gate = StartGate::new("n1");
        let kinds = [Kind::Service, Kind::Service, Kind::Node, Kind::EndpointSlice, Kind::EndpointSlice];
        let said = kinds.map(|kind| gate.listed(kind));
        assert_eq!(said, [vec![], vec![], vec![], vec![Event::Synced], vec![]]);
    }

    /// IN-5: the Node is waited for for 30 seconds after all else; and that it came is told once.
    #[tokio::test(start_paused = true)]
    async fn the_node_may_be_late_and_no_other_kind() {
        let gate = StartGate::new("n1");
        gate.listed(Kind::Service);
        let mut late = std::pin::pin!(gate.node_is_late());
        let waited = tokio::time::timeout(PATIENCE * 10, late.as_mut()).await;
        assert!(waited.is_err(), "the endpoints are not known");
        gate.listed(Kind::EndpointSlice);
        let start = tokio::time::Instant::now();
        let said = late.await;
        assert_eq!(start.elapsed(), PATIENCE);
        let [Event::Found { subject, flaws }, Event::Synced] = &said[..] else { panic!("{said:?}") };
        assert_eq!((subject, flaws.len()), (&Subject::node("n1"), 1));
        assert_eq!(gate.listed(Kind::Node), [gate.of_node(Vec::new())]);
        assert_eq!(gate.listed(Kind::Node), []);
    }

    /// IN-5: a Node that comes in time is not spoken of.
    #[tokio::test(start_paused = true)]
    async fn a_node_in_time_is_no_matter() {
        let gate = StartGate::new("n1");
        let kinds = [Kind::EndpointSlice, Kind::Service, Kind::Node];
        assert_eq!(kinds.map(|kind| gate.listed(kind)), [vec![], vec![], vec![Event::Synced]]);
        assert_eq!(gate.node_is_late().await, []);
    }
}
