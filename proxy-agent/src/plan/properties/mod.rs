//! Properties of planning, on random clusters and random sequences of changes.
//!
//! Names and addresses come from small pools, so that everything collides with everything.

pub(crate) mod cluster;
mod oracle;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use proptest::prelude::*;
use proxy_common::{Address, AddressBits, FrontendKey};

use self::{
    cluster::{Change, Cluster},
    oracle::{Answer, Frontend},
};
use super::{AllowedClients, Changes, Planner, ServicePlan, ServicePortId, Target};
use crate::model::Event;

/// What a dataplane would have after the changes that it was given.
#[derive(PartialEq, Default, Debug)]
struct Installed {
    plans: BTreeMap<ServicePortId, ServicePlan>,
    addresses: BTreeMap<Address, AddressBits>,
}

impl Installed {
    fn apply(&mut self, changes: Changes) {
        let Changes { more, complete, install, remove, addresses, pods: _ } = changes;
        assert!(!more, "a small cluster is one part");
        if complete {
            *self = Self::default();
        }
        for id in remove {
            assert!(self.plans.remove(&id).is_some(), "{id} is removed, but was not there");
        }
        for plan in install {
            assert_ne!(self.plans.get(&plan.id), Some(&plan), "installed again without a change");
            self.plans.insert(plan.id.clone(), plan);
        }
        for (address, bits) in addresses {
            assert_ne!(
                self.addresses.get(&address).copied().unwrap_or_default(),
                bits,
                "no change of {address}"
            );
            if bits == AddressBits::NONE {
                self.addresses.remove(&address);
            } else {
                self.addresses.insert(address, bits);
            }
        }
    }
}

/// A planner that is told everything at once.
fn from_scratch(cluster: &Cluster) -> (Installed, Planner) {
    let mut planner = Planner::new("n1");
    planner.set_local_addresses(cluster.local_addresses());
    let mut installed = Installed::default();
    installed.apply(planner.apply(cluster.events().into_iter().rev().chain([Event::Synced])));
    (installed, planner)
}

/// What a plan says, in the words of the oracle.
fn meaning(plans: &BTreeMap<ServicePortId, ServicePlan>) -> BTreeMap<FrontendKey, Frontend> {
    let mut frontends = BTreeMap::new();
    for plan in plans.values() {
        let endpoint = |index: usize| {
            let planned = plan.endpoints[index];
            (IpAddr::from(planned.address), planned.port.get())
        };
        let answer = |target: &Target| match target {
            Target::Refuse(reason) => Answer::Refuse(*reason),
            Target::Endpoints(range) => {
                assert!(!range.is_empty(), "an empty target");
                Answer::Endpoints(range.clone().map(|index| endpoint(index as usize)).collect())
            }
        };
        let all: BTreeSet<_> = (0..plan.endpoints.len()).map(endpoint).collect();
        assert_eq!(all.len(), plan.endpoints.len(), "an endpoint twice");
        let serving = (0..plan.endpoints.len()).filter(|index| plan.endpoints[*index].serving).map(endpoint);
        assert!(!plan.frontends.is_empty() && plan.frontends.is_sorted());
        let frontend = Frontend {
            service: plan.id.service.name().to_owned(),
            port: plan.id.port.to_string(),
            cluster: answer(&plan.cluster),
            inside: answer(&plan.inside),
            outside: answer(&plan.outside),
            serving: serving.collect(),
            affinity_seconds: plan.affinity_seconds,
            sources: match &plan.allowed_clients {
                AllowedClients::Everyone => None,
                AllowedClients::Only(ranges) => Some(ranges.iter().map(ToString::to_string).collect()),
            },
        };
        for (key, _) in &plan.frontends {
            assert!(frontends.insert(*key, frontend.clone()).is_none(), "two owners of {key}");
        }
    }
    frontends
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 384, ..ProptestConfig::default() })]

    /// However a cluster came about, its plan is the same as if it had always been so; and each step gives
    /// only what it changes.
    #[test]
    fn the_order_of_changes_does_not_matter(
        start in cluster::cluster(),
        batches in prop::collection::vec(prop::collection::vec(cluster::change(), 1..4), 1..8),
    ) {
        let mut cluster = start;
        let (mut installed, mut planner) = from_scratch(&cluster);
        for batch in batches {
            let mut events = Vec::new();
            for change in batch {
                if let Change::LocalAddresses(_) = change {
                    installed.apply(planner.apply(std::mem::take(&mut events)));
                }
                events.extend(cluster.apply(change));
                installed.apply(planner.set_local_addresses(cluster.local_addresses()));
            }
            installed.apply(planner.apply(events));
            let (expected, mut fresh) = from_scratch(&cluster);
            prop_assert_eq!(&installed, &expected);
            prop_assert_eq!(planner.problems(), fresh.problems());
            prop_assert_eq!(planner.full(), fresh.full());
        }
    }

    /// FE-1..FE-6, EP-1..EP-11, PO-1..PO-3, PO-18, PO-19, ST-1, ST-2: what clients get is what a reader of
    /// the rows would say.
    #[test]
    fn the_plan_says_what_the_rows_say(cluster in cluster::cluster()) {
        let (installed, _) = from_scratch(&cluster);
        let expected = oracle::frontends(&cluster);
        prop_assert_eq!(meaning(&installed.plans), expected);
        prop_assert_eq!(installed.addresses, oracle::addresses(&cluster));
    }
}
