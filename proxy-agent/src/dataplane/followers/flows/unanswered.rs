//! Connections that were never answered. Many of them mean that an endpoint does not answer, or that its answers
//! bypass this node. They are counted from the existing records, so counting costs the programs nothing and works
//! without the agent.

use std::collections::BTreeMap;

use super::{FlowState, list::ListedFlow};

/// After this many seconds a connection counts as unanswered.
const PATIENCE: u32 = 3;

/// A Service port's recorded north-south connections.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Unanswered {
    /// How many there are.
    pub connections: usize,
    /// How many of them were never answered.
    pub unanswered: usize,
}

impl Unanswered {
    /// Whether to report it: at least a tenth of them, and at least three.
    pub const fn is_striking(&self) -> bool {
        self.unanswered >= 3 && self.unanswered * 10 >= self.connections
    }
}

/// By the index of the Service, at `now` in seconds since boot. Those that began just now are not counted.
pub fn unanswered(flows: &[ListedFlow], now: u32) -> BTreeMap<u32, Unanswered> {
    let mut counts = BTreeMap::<u32, Unanswered>::new();
    for flow in flows.iter().filter(|flow| now.saturating_sub(flow.began) >= PATIENCE) {
        let Some(service) = flow.service else { continue };
        let count = counts.entry(service).or_default();
        count.connections += 1;
        count.unanswered += usize::from(!flow.answered && flow.state != FlowState::Closed);
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(service: u32, answered: bool, began: u32) -> ListedFlow {
        let at = ([192, 0, 2, 1], 1).into();
        ListedFlow {
            protocol: None,
            client: at,
            frontend: at,
            endpoint: at,
            source: None,
            service: Some(service),
            device: 0,
            state: if answered { FlowState::Established } else { FlowState::Unanswered },
            answered,
            fast: false,
            confirmed: answered,
            began,
            used: began,
        }
    }

    #[test]
    fn what_was_never_answered_is_counted_for_its_service() {
        let mut flows: Vec<ListedFlow> = (0..20).map(|number| flow(1, number >= 3, 10)).collect();
        flows.push(flow(2, false, 10));
        flows.push(flow(1, false, 99));
        let counts = unanswered(&flows, 100);
        assert_eq!(counts[&1], Unanswered { connections: 20, unanswered: 3 });
        assert_eq!(counts[&2], Unanswered { connections: 1, unanswered: 1 });
        assert!(counts[&1].is_striking() && !counts[&2].is_striking());
        assert!(!Unanswered { connections: 31, unanswered: 3 }.is_striking());
    }
}
