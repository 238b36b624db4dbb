//! What an earlier agent installed, for Services of which not everything is known.
//!
//! A source that cannot read something since the agent was started does not know what it defines ([`Unread`]). A running
//! agent keeps what it had read before; one that is started keeps what is installed: a Service that nothing readable
//! defines stays as it is, and one without readable slices keeps its endpoints. Once the source has read everything, only
//! that counts.

use std::collections::BTreeMap;

use proxy_common::FrontendKey;

use super::{ServicePlan, ServicePortId, Target, precedence::is_api_server};
use crate::model::{Flaw, ObjectName, Unread};

/// Plans that were in effect before the agent was started.
#[derive(Default, Debug)]
pub(super) struct Recalled {
    plans: BTreeMap<ObjectName, Vec<ServicePlan>>,
    unread: Unread,
}

/// What is known of a Service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Known {
    /// Neither the Service nor its slices, or slices alone.
    NoService,
    /// The Service without a slice.
    NoSlices,
    /// The Service and slices.
    Slices,
}

impl Recalled {
    /// Takes in what is installed.
    pub(super) fn add(&mut self, plan: ServicePlan) {
        self.plans.entry(plan.id.service.clone()).or_default().push(plan);
    }

    /// The plan that was in effect.
    pub(super) fn get(&self, id: &ServicePortId) -> Option<&ServicePlan> {
        self.plans.get(&id.service)?.iter().find(|plan| plan.id == *id)
    }

    /// Services that may have to be kept, as long as something is unread.
    pub(super) fn concerned(&self) -> impl Iterator<Item = &ObjectName> {
        self.plans.keys().filter(|name| self.unread.concerns(name))
    }

    /// Follows what is unread; gives the Services that were kept for what has been read now.
    pub(super) fn set_unread(&mut self, unread: Unread) -> Vec<ObjectName> {
        let before: Vec<ObjectName> = self.concerned().cloned().collect();
        self.unread = unread;
        if self.unread.is_nothing() {
            // The API server's last endpoints are asked for at any time.
            self.plans.retain(|name, _| is_api_server(name));
        }
        before
    }

    /// Keeps in `plans` what is installed of a Service; says so. `is_taken` are frontends that another Service has by now.
    pub(super) fn keep(
        &self,
        name: &ObjectName,
        known: Known,
        plans: &mut Vec<ServicePlan>,
        is_taken: impl Fn(&FrontendKey) -> bool,
    ) -> Option<Flaw> {
        let last = self.plans.get(name).filter(|_| self.unread.concerns(name))?;
        match known {
            Known::NoService => {
                let mut last = last.clone();
                for plan in &mut *last {
                    plan.frontends.retain(|(key, _)| !is_taken(key));
                }
                last.retain(|plan| !plan.frontends.is_empty());
                *plans = last;
                let message = "nothing that can be read defines it, so it stays as an earlier agent installed it; \
                               mend the manifests named among the problems";
                (!plans.is_empty()).then(|| Flaw::new("manifest", message))
            }
            Known::NoSlices => {
                let mut kept = false;
                for plan in plans.iter_mut() {
                    let endpoints = |last: &&ServicePlan| matches!(last.cluster, Target::Endpoints(_));
                    if let Some(last) = self.get(&plan.id).filter(endpoints) {
                        *plan = with_endpoints_of(plan, last);
                        kept = true;
                    }
                }
                let message = "no EndpointSlice of it can be read, so its last endpoints stay installed; mend the \
                               manifests named among the problems";
                kept.then(|| Flaw::new("endpoints", message))
            }
            Known::Slices => None,
        }
    }
}

/// A plan with the endpoints of another one of the same Service port.
pub(super) fn with_endpoints_of(plan: &ServicePlan, last: &ServicePlan) -> ServicePlan {
    let ServicePlan { id, frontends, allowed_clients, affinity_seconds, .. } = plan.clone();
    ServicePlan { id, frontends, allowed_clients, affinity_seconds, ..last.clone() }
}
