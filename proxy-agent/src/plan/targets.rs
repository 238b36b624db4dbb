//! Where does traffic go? The policy matrix of one Service port.

use proxy_common::Reason;

use super::{PlannedEndpoint, Target, arrange::arrange, candidates::Candidate, usable, view::View};
use crate::model::{Service, TrafficPolicy};

/// The endpoints of a Service port, and what each kind of client gets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Targets {
    /// All endpoints, arranged.
    pub(super) endpoints: Vec<PlannedEndpoint>,
    /// For clients of the ClusterIP.
    pub(super) cluster: Target,
    /// For pods and processes of this node that use an external frontend.
    pub(super) inside: Target,
    /// For clients outside of this node.
    pub(super) outside: Target,
}

/// Decides for every kind of client. `external` says whether the port has external frontends at all
/// (FE-9): without any, the other targets are the ClusterIP's, and no set is computed for them.
pub(super) fn targets(
    service: &Service,
    candidates: &[Candidate<'_>],
    external: bool,
    view: View<'_>,
) -> Targets {
    let policies = [internal_policy(service), INSIDE_POLICY, external_policy(service)];
    let used = if external { &policies[..] } else { &policies[..1] };
    let needs = |policy| used.contains(&policy);
    let cluster_set =
        if needs(TrafficPolicy::Cluster) { usable::cluster_set(candidates, view) } else { Vec::new() };
    let local_set = if needs(TrafficPolicy::Local) { usable::local_set(candidates) } else { Vec::new() };

    let arrangement = arrange(candidates, &cluster_set, &local_set);
    let target = |policy| {
        let range = match policy {
            TrafficPolicy::Cluster => &arrangement.first,
            TrafficPolicy::Local => &arrangement.second,
        };
        if range.is_empty() {
            Target::Refuse(refusal(candidates, policy))
        } else {
            Target::Endpoints(range.clone())
        }
    };
    let [cluster, inside, outside] =
        if external { policies.map(target) } else { std::array::from_fn(|_| target(policies[0])) };
    Targets { cluster, inside, outside, endpoints: arrangement.endpoints }
}

/// PO-2: the ClusterIP follows `internalTrafficPolicy`.
fn internal_policy(service: &Service) -> TrafficPolicy {
    service.internal
}

/// PO-3: pods and processes of this node that use an external frontend are never held to Local.
const INSIDE_POLICY: TrafficPolicy = TrafficPolicy::Cluster;

/// PO-3: clients outside follow `externalTrafficPolicy`.
fn external_policy(service: &Service) -> TrafficPolicy {
    service.external
}

/// PO-1: no endpoint anywhere. PO-2, PO-19: some, but none here.
fn refusal(candidates: &[Candidate<'_>], policy: TrafficPolicy) -> Reason {
    if policy == TrafficPolicy::Local && usable::has_any(candidates) {
        Reason::NoLocalEndpoints
    } else {
        Reason::NoEndpoints
    }
}

#[cfg(test)]
mod tests {
    use proxy_common::Reason::{NoEndpoints, NoLocalEndpoints};
    use serde_json::json;

    use super::*;
    use crate::plan::testing;

    /// PO-1, PO-2, PO-3, PO-19, FE-9: the whole matrix. Targets are written as hosts.
    #[test]
    fn policies_choose_the_set_for_each_kind_of_client() {
        let endpoints = |hosts: &[u8]| Ok(hosts.to_vec());
        for (internal, external_policy, external, states, cluster, inside, outside) in [
            ("Cluster", "Cluster", true, &[][..], Err(NoEndpoints), Err(NoEndpoints), Err(NoEndpoints)),
            ("Local", "Local", true, &["unready"], Err(NoEndpoints), Err(NoEndpoints), Err(NoEndpoints)),
            (
                "Cluster",
                "Cluster",
                true,
                &["ready", "ready local"],
                endpoints(&[0, 1]),
                endpoints(&[0, 1]),
                endpoints(&[0, 1]),
            ),
            ("Local", "Cluster", true, &["ready"], Err(NoLocalEndpoints), endpoints(&[0]), endpoints(&[0])),
            ("Cluster", "Local", true, &["ready"], endpoints(&[0]), endpoints(&[0]), Err(NoLocalEndpoints)),
            (
                "Local",
                "Local",
                true,
                &["ready", "ready local"],
                endpoints(&[1]),
                endpoints(&[0, 1]),
                endpoints(&[1]),
            ),
            (
                "Local",
                "Cluster",
                false,
                &["ready", "ready local"],
                endpoints(&[1]),
                endpoints(&[1]),
                endpoints(&[1]),
            ),
            (
                "Local",
                "Cluster",
                false,
                &["ready"],
                Err(NoLocalEndpoints),
                Err(NoLocalEndpoints),
                Err(NoLocalEndpoints),
            ),
            (
                "Cluster",
                "Local",
                true,
                &["ready", "terminating local"],
                endpoints(&[0]),
                endpoints(&[0]),
                endpoints(&[1]),
            ),
        ] {
            let service = testing::service(json!({"clusterIP": "10.0.0.1",
                "internalTrafficPolicy": internal, "externalTrafficPolicy": external_policy}));
            let candidates: Vec<_> =
                (0..).zip(states).map(|(i, state)| testing::candidate(i, state)).collect();
            let targets = targets(&service, &candidates, external, testing::view());
            let hosts = |target: &Target| match target {
                Target::Refuse(reason) => Err(*reason),
                Target::Endpoints(range) => Ok(range
                    .clone()
                    .map(|i| targets.endpoints[i as usize].address.bytes[15])
                    .collect::<Vec<_>>()),
            };
            assert_eq!(
                [hosts(&targets.cluster), hosts(&targets.inside), hosts(&targets.outside)],
                [cluster, inside, outside],
                "iTP {internal}, eTP {external_policy}, {states:?}"
            );
        }
    }
}
