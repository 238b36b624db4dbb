//! The last plan of a Service, for comparison with the next one.

use proxy_common::FrontendKey;
use serde::{Deserialize, Serialize};

use super::ServicePlan;

/// What a Service has.
#[derive(Default, Debug, Serialize, Deserialize)]
pub(super) struct Planned {
    /// The frontends that it asks for, whether it owns them or not; nothing where they are those of its plans.
    claims: Option<Box<[FrontendKey]>>,
    /// Its plans, sorted by id.
    pub(super) plans: Vec<ServicePlan>,
}

impl Planned {
    /// Of these plans, sorted by id, while the Service asks for these frontends, in order.
    pub(super) fn new(plans: Vec<ServicePlan>, claims: Box<[FrontendKey]>) -> Self {
        let mut planned = Self { claims: None, plans };
        if *claims != *planned.claims() {
            planned.claims = Some(claims);
        }
        planned
    }

    /// The frontends that it asks for, in order.
    pub(super) fn claims(&self) -> Box<[FrontendKey]> {
        if let Some(claims) = &self.claims {
            return claims.clone();
        }
        let mut keys: Vec<_> =
            self.plans.iter().flat_map(|plan| &plan.frontends).map(|(key, _)| *key).collect();
        keys.sort_unstable();
        keys.into()
    }

    /// Whether the Service has nothing and asks for nothing.
    pub(super) fn is_nothing(&self) -> bool {
        self.plans.is_empty() && self.claims.is_none()
    }
}
