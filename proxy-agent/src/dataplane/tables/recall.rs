//! Reads the installed plan back from the maps: what an earlier agent installed.

use proxy_common::{EndpointState, Reason, Span};

use super::{installed::Installed, writer::Writer};
use crate::plan::{AllowedClients, PlannedEndpoint, ServicePlan, ServicePortId, Target};

impl Writer {
    /// The plans that are in effect, of the Services for which `wanted` says so.
    pub(crate) fn recall(&self, wanted: impl Fn(&ServicePortId) -> bool) -> Vec<ServicePlan> {
        let wanted = self.installed().iter().filter(|(id, _)| wanted(id));
        wanted.filter_map(|(id, found)| self.plan_of(&id, &found)).collect()
    }

    pub(super) fn plan_of(&self, id: &ServicePortId, found: &Installed) -> Option<ServicePlan> {
        let Installed { index, block, frontends } = found;
        let record = self.tables().services.load(*index)?;
        let target = |span: Span| match span {
            Span { base, count: 0 } => Target::Refuse(Reason::from_number(base)),
            Span { base, count } => {
                let start = base.saturating_sub(block.start);
                Target::Endpoints(start..start.saturating_add(count))
            }
        };
        let endpoints = block.clone().filter_map(|slot| {
            let endpoint = self.tables().endpoints.load(slot)?;
            let state = self.tables().states.load(endpoint.id)?;
            let serving = state.bits & EndpointState::SERVING != 0;
            Some(PlannedEndpoint {
                address: endpoint.address,
                port: endpoint.port,
                local: endpoint.is_local(),
                serving,
            })
        });
        Some(ServicePlan {
            id: id.clone(),
            frontends: frontends.to_vec(),
            allowed_clients: match self.ranges.installed.get(index) {
                Some(restriction) => AllowedClients::Only(restriction.ranges.clone()),
                None => AllowedClients::Everyone,
            },
            affinity_seconds: record.affinity_seconds,
            endpoints: endpoints.collect(),
            cluster: target(record.cluster),
            inside: target(record.inside),
            outside: target(record.outside),
        })
    }
}
