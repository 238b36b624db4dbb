//! When is the agent healthy? (HE-1, HE-2)
//!
//! It is healthy unless a change has waited too long; so it is healthy while it starts and nothing has arrived. Times
//! are arguments: those that are compared are no clock's that somebody sets.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use serde::Serialize;

use crate::plan::Family;

/// The state of each family's changes, and of the node.
#[derive(Debug)]
pub(super) struct Health {
    families: Vec<(Family, State)>,
    patience: Duration,
    node_eligible: bool,
}

#[derive(Clone, Copy, Default, Debug)]
struct State {
    applied: Option<Timestamp>,
    /// When the oldest change came that has not been applied.
    waiting: Option<Instant>,
}

/// The present, for people and for comparisons.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) clock: Timestamp,
    pub(super) instant: Instant,
}

impl Now {
    pub(super) fn get() -> Self {
        Self { clock: Timestamp::now(), instant: Instant::now() }
    }
}

/// The body of an answer, as kube-proxy's.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    last_updated: Timestamp,
    current_time: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_eligible: Option<bool>,
    pub(super) healthy: bool,
    status: BTreeMap<&'static str, FamilyReport>,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct FamilyReport {
    last_updated: Timestamp,
    healthy: bool,
}

/// The value of the label `ip_family`, and the key in reports.
pub(super) const fn name(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}

impl Health {
    /// Nothing has come yet. A change that waits for longer than `patience` is stuck.
    pub(super) fn new(families: &[Family], patience: Duration) -> Self {
        let families = families.iter().map(|family| (*family, State::default())).collect();
        Self { families, patience, node_eligible: false }
    }

    /// Changes came.
    pub(super) fn queued(&mut self, now: Instant) {
        for (_, state) in &mut self.families {
            state.waiting.get_or_insert(now);
        }
    }

    /// All that came has been applied.
    pub(super) fn applied(&mut self, now: Timestamp) {
        for (_, state) in &mut self.families {
            *state = State { applied: Some(now), waiting: None };
        }
    }

    /// Whether the Node was seen and is not leaving.
    pub(super) fn set_node_eligible(&mut self, eligible: bool) {
        self.node_eligible = eligible;
    }

    /// HE-2: whether changes are applied, whatever becomes of the node.
    pub(super) fn is_live(&self, now: Instant) -> bool {
        self.families.iter().all(|(_, state)| self.is_family_live(*state, now))
    }

    fn is_family_live(&self, state: State, now: Instant) -> bool {
        state.waiting.is_none_or(|since| now.duration_since(since) <= self.patience)
    }

    /// HE-1: the whole report, with the node.
    pub(super) fn healthz(&self, now: Now) -> Report {
        let report = self.livez(now);
        Report {
            node_eligible: Some(self.node_eligible),
            healthy: report.healthy && self.node_eligible,
            ..report
        }
    }

    /// HE-2: the report without the node.
    pub(super) fn livez(&self, now: Now) -> Report {
        let Now { clock: now, instant } = now;
        let family = |&(family, state): &(Family, State)| {
            let healthy = self.is_family_live(state, instant);
            let last_updated = if healthy { now } else { state.applied.unwrap_or(Timestamp::UNIX_EPOCH) };
            (name(family), FamilyReport { last_updated, healthy })
        };
        let status: BTreeMap<_, _> = self.families.iter().map(family).collect();
        let last_updated = status.values().map(|family| family.last_updated).min().unwrap_or(now);
        Report {
            last_updated,
            current_time: now,
            node_eligible: None,
            healthy: self.is_live(instant),
            status,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;

    const PATIENCE: Duration = Duration::from_mins(1);

    /// So many seconds after the test began, for which the clock shows a time long ago.
    fn at(second: u32) -> Now {
        let clock = Timestamp::from_second(1_000_000 + i64::from(second)).expect("a time");
        Now { clock, instant: *BEGAN + Duration::from_secs(second.into()) }
    }

    static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

    fn health() -> Health {
        let mut health = Health::new(&[Family::V4, Family::V6], PATIENCE);
        health.set_node_eligible(true);
        health
    }

    /// HE-1: a change may wait for twice the syncPeriod, counted from the oldest one.
    #[test]
    fn a_change_that_waits_too_long_makes_the_agent_unhealthy() {
        let mut health = health();
        assert!(health.healthz(at(0)).healthy, "nothing has come while it starts");
        health.queued(at(0).instant);
        health.queued(at(50).instant);
        assert!(health.healthz(at(60)).healthy);
        assert!(!health.healthz(at(61)).healthy);
        assert!(!health.livez(at(61)).healthy);
        health.applied(at(62).clock);
        assert!(health.healthz(at(1000)).healthy, "nothing waits");
    }

    /// HE-1: a clock that is set forward makes no change wait longer, and one that is set back hides none that waits.
    #[test]
    fn a_clock_that_jumps_changes_nobodys_health() {
        let mut health = health();
        health.queued(at(0).instant);
        let shows =
            |second, clock: i64| Now { clock: Timestamp::from_second(clock).expect("a time"), ..at(second) };
        assert!(health.healthz(shows(1, 2_000_000_000)).healthy);
        assert!(!health.healthz(shows(61, 0)).healthy);
    }

    /// HE-1, HE-2: the node counts for load balancers, and not for the kubelet.
    #[test]
    fn a_node_that_leaves_is_alive_and_not_eligible() {
        let mut health = Health::new(&[Family::V4], PATIENCE);
        assert!(!health.healthz(at(0)).healthy, "the Node was never seen");
        health.set_node_eligible(true);
        assert!(health.healthz(at(0)).healthy);
        health.set_node_eligible(false);
        assert!(!health.healthz(at(0)).healthy);
        assert!(health.livez(at(0)).healthy);
    }

    /// HE-1: the fields that people and their scripts know; a healthy agent was updated just now.
    #[test]
    fn the_report_is_kube_proxys() {
        let mut health = health();
        health.applied(at(0).clock);
        health.queued(at(10).instant);
        let json = serde_json::to_value(health.healthz(at(11))).expect("JSON");
        let now = "1970-01-12T13:46:51Z";
        let family = serde_json::json!({"lastUpdated": now, "healthy": true});
        assert_eq!(
            json,
            serde_json::json!({"lastUpdated": now, "currentTime": now, "nodeEligible": true,
            "healthy": true, "status": {"IPv4": family, "IPv6": family}})
        );
        let stuck = serde_json::to_value(health.livez(at(100))).expect("JSON");
        assert_eq!(stuck["lastUpdated"], "1970-01-12T13:46:40Z");
        assert_eq!(stuck["status"]["IPv4"]["healthy"], false);
        assert_eq!(stuck.get("nodeEligible"), None);
    }
}
