//! The plan of one Service, before claims decide which of its frontends belong to other Services (FE-6).

use super::{
    Family, ServicePlan, ServicePortId,
    allowed_clients::allowed_clients,
    candidates::candidates,
    frontends::{self, Want},
    targets::{Targets, targets},
    view::View,
};
use crate::model::{EndpointSlice, Service, ServicePort};

/// A Service port in one family, and the frontends that it claims.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    /// The port.
    pub(super) port: &'a ServicePort,
    /// The family.
    pub(super) family: Family,
    /// The frontends that it claims; never empty.
    pub(super) wants: Vec<Want>,
}

/// Everything that a Service claims: a pure function of the Service and the node.
pub(super) fn drafts<'a>(service: &'a Service, view: View<'_>) -> Vec<Draft<'a>> {
    let mut drafts = Vec::with_capacity(service.ports.len());
    for port in &service.ports {
        for family in frontends::families(service) {
            let wants = frontends::wants(service, port, family, view);
            if !wants.is_empty() {
                drafts.push(Draft { port, family, wants });
            }
        }
    }
    drafts
}

impl Draft<'_> {
    /// The plan with those of its frontends that `owns` lets it have; nothing if it gets none of them.
    pub(super) fn plan(
        &self,
        service: &Service,
        slices: &[EndpointSlice],
        view: View<'_>,
        owns: impl Fn(&Want) -> bool,
    ) -> Option<ServicePlan> {
        let Self { port, family, wants } = self;
        let owned: Vec<&Want> = wants.iter().filter(|want| owns(want)).collect();
        if owned.is_empty() {
            return None;
        }
        let external = owned.iter().any(|want| want.is_external());
        let mut frontends: Vec<_> = owned.into_iter().map(|want| (want.key, want.kind)).collect();
        frontends.sort_unstable();
        let candidates = candidates(slices, &port.name, port.protocol, *family, view);
        let Targets { endpoints, cluster, inside, outside } = targets(service, &candidates, external, view);
        Some(ServicePlan {
            id: ServicePortId {
                service: service.name.clone(),
                port: port.name.clone(),
                protocol: port.protocol,
                family: *family,
            },
            frontends,
            allowed_clients: allowed_clients(service, *family, view),
            affinity_seconds: service.affinity_seconds,
            endpoints,
            cluster,
            inside,
            outside,
        })
    }
}
