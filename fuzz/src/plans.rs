//! What holds of every plan, wherever its objects come from.

use std::collections::{BTreeMap, HashSet};

use proxy_agent::{
    model::Event,
    plan::{Changes, Planner, ServicePlan, ServicePortId, Target},
};
use proxy_common::FrontendKey;

/// A planner, and what its changes have installed.
#[derive(Debug)]
pub(crate) struct Planned {
    planner: Planner,
    installed: BTreeMap<ServicePortId, ServicePlan>,
    everything_came: bool,
}

impl Planned {
    /// A node's.
    pub(crate) fn new() -> Self {
        let mut planner = Planner::new("n1");
        planner.set_local_addresses(vec![[192, 168, 0, 1].into()]);
        Self { planner, installed: BTreeMap::new(), everything_came: false }
    }

    /// Takes in what a source says. What is installed then, step by step, is the whole plan.
    pub(crate) fn take(&mut self, events: Vec<Event>) {
        let mut changes = self.planner.apply(events);
        self.install(changes);
        if !self.everything_came {
            self.everything_came = true;
            changes = self.planner.apply([Event::Synced]);
            while changes.more {
                self.install(changes);
                changes = self.planner.next_part();
            }
            self.install(changes);
        }
        let whole = self.planner.full().install;
        assert!(
            whole.iter().eq(self.installed.values()),
            "{whole:?}\nis planned, and installed is {:?}",
            self.installed
        );
        check(&whole);
        for problem in self.planner.problems() {
            assert!(!problem.message.is_empty(), "{problem:?}");
        }
    }

    /// The plans.
    pub(crate) const fn installed(&self) -> &BTreeMap<ServicePortId, ServicePlan> {
        &self.installed
    }

    fn install(&mut self, changes: Changes) {
        for id in changes.remove {
            assert!(self.installed.remove(&id).is_some(), "{id} goes, and was not there");
        }
        self.installed.extend(changes.install.into_iter().map(|plan| (plan.id.clone(), plan)));
    }
}

fn check(plans: &[ServicePlan]) {
    let mut owned: HashSet<FrontendKey> = HashSet::new();
    for plan in plans {
        assert!(!plan.frontends.is_empty() && plan.frontends.is_sorted(), "{plan:?}");
        for (key, _) in &plan.frontends {
            assert!(key.port.get() != 0, "port 0: {plan:?}");
            assert!(owned.insert(*key), "two plans have {key}");
        }
        let ports = plan.endpoints.iter().map(|endpoint| endpoint.port.get());
        assert!(ports.into_iter().all(|port| port != 0), "port 0: {plan:?}");
        let mut ends = HashSet::new();
        assert!(
            plan.endpoints.iter().all(|one| ends.insert((one.address, one.port))),
            "an endpoint twice: {plan:?}"
        );
        for target in [&plan.cluster, &plan.inside, &plan.outside] {
            if let Target::Endpoints(range) = target {
                assert!(
                    !range.is_empty() && range.end as usize <= plan.endpoints.len(),
                    "{target:?}: {plan:?}"
                );
            }
        }
    }
}
