//! Keeps the API server reachable: `default/kubernetes` is never planned without endpoints.
//!
//! An API server that restarts removes its own endpoint. If it was the last one, the controllers that put it back
//! must still reach the server at its last address.

use super::{ServicePlan, Target, recalled::with_endpoints_of};
use crate::model::Flaw;

/// Gives a plan without endpoints those of `last`, the plan that was in effect before. Without such a plan
/// nothing is installed: the address is left alone rather than refused.
pub(super) fn keep_open(
    plan: ServicePlan,
    last: Option<&ServicePlan>,
) -> (Option<ServicePlan>, Option<Flaw>) {
    if matches!(plan.cluster, Target::Endpoints(_)) {
        return (Some(plan), None);
    }
    let last = last.filter(|last| matches!(last.cluster, Target::Endpoints(_)));
    let Some(last) = last else {
        let message = "no usable endpoint and no last known one, so the Service is not installed; check the API \
                       server's EndpointSlice";
        return (None, Some(Flaw::new("endpoints", message)));
    };
    let kept = with_endpoints_of(&plan, last);
    let message = "no usable endpoint, so the last known ones stay installed; check the API server's \
                   EndpointSlice";
    (Some(kept), Some(Flaw::new("endpoints", message)))
}
