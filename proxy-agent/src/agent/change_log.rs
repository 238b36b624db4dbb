//! Logs added, changed and removed Services by name, with their frontends and endpoints.
//!
//! It compares what the maps hold of the Services that a change touches with the plan, and only if level info is on.
//! It skips the first complete plan, which gets one line elsewhere; of a change of very many Services it names the
//! first, and counts the others.

use std::{collections::HashMap, fmt, net::SocketAddr};

use proxy_common::{Address, EndpointState, FrontendKey, FrontendKind, Port, Reason, SourceRange};
use tracing::{Level, enabled, info};

use crate::{
    dataplane::Dataplane,
    plan::{AllowedClients, Changes, ServicePlan, ServicePortId, Target},
};

/// How many Services of one change are logged.
const SERVICES: usize = 100;
/// How many frontends or endpoints are named in a line.
const NAMED: usize = 10;

type Frontends = [(FrontendKey, FrontendKind)];

/// What the tables held of the Services that are about to change.
#[derive(Debug)]
pub(super) struct ChangeLog(HashMap<ServicePortId, Before>);

/// One of these Services.
#[derive(Default, Debug)]
struct Before {
    frontends: Box<Frontends>,
    /// Endpoints that some client could get.
    endpoints: Vec<(Address, Port)>,
}

impl ChangeLog {
    /// `None` unless there is a change to log and level info is on.
    pub(super) fn of(changes: &Changes, dataplane: &Dataplane) -> Option<Self> {
        let Changes { more, complete, install, remove, addresses: _, pods: _ } = changes;
        if *more || *complete || (install.is_empty() && remove.is_empty()) || !enabled!(Level::INFO) {
            return None;
        }
        let told = install.iter().map(|plan| &plan.id).chain(remove).take(SERVICES);
        let before = told.filter_map(|id| Some((id.clone(), Before::of(id, dataplane)?))).collect();
        Some(Self(before))
    }

    /// Logs the change after it was made.
    pub(super) fn tell(&self, changes: &Changes) {
        for plan in changes.install.iter().take(SERVICES) {
            let id = &plan.id;
            match self.0.get(id) {
                None => {
                    let (frontends, endpoints) = (List(&plan.frontends), usable(plan));
                    info!(
                        service = %id,
                        %frontends,
                        sources = allowed_clients(plan).map(display),
                        endpoints = %List(&endpoints),
                        refuses = refuses(plan),
                        "added"
                    );
                }
                Some(before) => Difference::between(before, plan).tell(plan),
            }
        }
        for id in changes.remove.iter().take(SERVICES.saturating_sub(changes.install.len())) {
            let frontends = self.0.get(id).map_or(&[][..], |before| &before.frontends);
            info!(service = %id, frontends = %List(frontends), "removed");
        }
        let all = changes.install.len() + changes.remove.len();
        if all > SERVICES {
            info!(services = all - SERVICES, "and more Services in the same change");
        }
    }
}

impl Before {
    fn of(id: &ServicePortId, dataplane: &Dataplane) -> Option<Self> {
        let found = dataplane.installed().get(id)?;
        let tables = dataplane.tables();
        let endpoints = found.block.filter_map(|slot| tables.endpoints.load(slot));
        let usable = endpoints.filter(|endpoint| {
            let bits = tables.states.load(endpoint.id).map_or(0, |state| state.bits);
            bits & !EndpointState::SERVING != 0
        });
        let endpoints = usable.map(|endpoint| (endpoint.address, endpoint.port)).collect();
        Some(Self { frontends: found.frontends, endpoints })
    }
}

/// What a Service gained and lost.
#[derive(PartialEq, Eq, Default, Debug)]
struct Difference {
    new_frontends: Vec<(FrontendKey, FrontendKind)>,
    gone_frontends: Vec<(FrontendKey, FrontendKind)>,
    new: Vec<SocketAddr>,
    gone: Vec<SocketAddr>,
    /// Gone for new connections; existing ones stay.
    draining: Vec<SocketAddr>,
}

impl Difference {
    fn between(before: &Before, plan: &ServicePlan) -> Self {
        let minus = |these: &Frontends, those: &Frontends| {
            these.iter().filter(|this| !those.contains(this)).copied().collect()
        };
        let mut former: Vec<SocketAddr> = before.endpoints.iter().copied().map(socket).collect();
        former.sort_unstable();
        let mut now = usable(plan);
        now.sort_unstable();
        let serving = |address: &SocketAddr| {
            plan.endpoints
                .iter()
                .any(|endpoint| endpoint.serving && socket((endpoint.address, endpoint.port)) == *address)
        };
        let left = former.iter().filter(|address| now.binary_search(address).is_err()).copied();
        let (draining, gone) = left.partition(serving);
        Self {
            new_frontends: minus(&plan.frontends, &before.frontends),
            gone_frontends: minus(&before.frontends, &plan.frontends),
            new: now.into_iter().filter(|address| former.binary_search(address).is_err()).collect(),
            gone,
            draining,
        }
    }

    fn tell(&self, plan: &ServicePlan) {
        let Self { new_frontends, gone_frontends, new, gone, draining } = self;
        info!(
            service = %plan.id,
            frontends_added = some(new_frontends).map(display),
            frontends_removed = some(gone_frontends).map(display),
            sources = allowed_clients(plan).map(display),
            endpoints_added = some(new).map(display),
            endpoints_removed = some(gone).map(display),
            draining = some(draining).map(display),
            endpoints = usable(plan).len(),
            refuses = refuses(plan),
            "updated"
        );
    }
}

/// The endpoints that some client may get.
fn usable(plan: &ServicePlan) -> Vec<SocketAddr> {
    let targets = [&plan.cluster, &plan.inside, &plan.outside];
    let is_used = |place: u32| {
        targets.iter().any(|target| matches!(target, Target::Endpoints(range) if range.contains(&place)))
    };
    let used = (0..).zip(&plan.endpoints).filter(|(place, _)| is_used(*place));
    used.map(|(_, endpoint)| socket((endpoint.address, endpoint.port))).collect()
}

/// Why clients of the ClusterIP are refused, if they are.
fn refuses(plan: &ServicePlan) -> Option<&'static str> {
    match plan.cluster {
        Target::Refuse(reason) => Some(Reason::name(reason)),
        Target::Endpoints(_) => None,
    }
}

/// The clients that may use the LoadBalancer IPs, if restricted.
fn allowed_clients(plan: &ServicePlan) -> Option<List<'_, SourceRange>> {
    match &plan.allowed_clients {
        AllowedClients::Everyone => None,
        AllowedClients::Only(ranges) => Some(List(ranges)),
    }
}

fn socket((address, port): (Address, Port)) -> SocketAddr {
    SocketAddr::new(address.into(), port.get())
}

fn some<T>(list: &[T]) -> Option<List<'_, T>> {
    (!list.is_empty()).then_some(List(list))
}

/// The first few by name, and how many more.
struct List<'a, T>(&'a [T]);

/// Formats an element of a list.
trait Named {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;
}

impl Named for SourceRange {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Named for SocketAddr {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Named for (FrontendKey, FrontendKind) {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0, self.1)
    }
}

impl<T: Named> fmt::Display for List<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (number, item) in self.0.iter().take(NAMED).enumerate() {
            f.write_str(if number > 0 { ", " } else { "" })?;
            item.write(f)?;
        }
        if self.0.len() > NAMED {
            write!(f, ", and {} more", self.0.len() - NAMED)?;
        }
        f.write_str("]")
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proxy_common::Protocol;

    use super::*;
    use crate::{
        model::ObjectName,
        plan::{Family, PlannedEndpoint},
    };

    fn address(host: u8) -> Address {
        IpAddr::from([10, 0, 0, host]).into()
    }

    fn named(list: &[SocketAddr]) -> String {
        List(list).to_string()
    }

    /// Endpoints on these hosts, of which the first `usable` may be chosen and all serve but those over 200.
    fn plan(hosts: &[u8], usable: u32, ports: &[u16]) -> ServicePlan {
        let endpoint = |host: &u8| PlannedEndpoint {
            address: address(*host),
            port: Port::new(80),
            local: false,
            serving: *host <= 200,
        };
        let target =
            if usable > 0 { Target::Endpoints(0..usable) } else { Target::Refuse(Reason::NoEndpoints) };
        let frontend = |port: &u16| {
            let key = FrontendKey::new(address(1), Port::new(*port), Protocol::Tcp as u8);
            (key, FrontendKind::ClusterIp)
        };
        ServicePlan {
            id: ServicePortId {
                service: ObjectName::new("demo", "web"),
                port: "".into(),
                protocol: Protocol::Tcp,
                family: Family::V4,
            },
            frontends: ports.iter().map(frontend).collect(),
            allowed_clients: AllowedClients::Everyone,
            affinity_seconds: 0,
            endpoints: hosts.iter().map(endpoint).collect(),
            cluster: target.clone(),
            inside: target.clone(),
            outside: target,
        }
    }

    fn before(plan: &ServicePlan) -> Before {
        let endpoints = plan.endpoints.iter().map(|endpoint| (endpoint.address, endpoint.port)).collect();
        Before { frontends: plan.frontends.clone().into(), endpoints }
    }

    #[test]
    fn added_removed_and_draining_endpoints_are_distinguished() {
        let former = before(&plan(&[2, 3, 4], 3, &[80]));
        // 3 drains, 4 is gone, 5 is new; and 205 was never usable.
        let found = Difference::between(&former, &plan(&[2, 5, 3, 205], 2, &[80]));
        assert_eq!(named(&found.new), "[10.0.0.5:80]");
        assert_eq!(named(&found.gone), "[10.0.0.4:80]");
        assert_eq!(named(&found.draining), "[10.0.0.3:80]");
        assert_eq!((found.new_frontends, found.gone_frontends), (vec![], vec![]));
        let nothing = Difference::between(&before(&plan(&[2], 1, &[80])), &plan(&[2], 1, &[80]));
        assert_eq!(nothing, Difference::default());
    }

    #[test]
    fn added_and_removed_frontends_are_listed() {
        let found = Difference::between(&before(&plan(&[], 0, &[80, 81])), &plan(&[], 0, &[81, 82]));
        assert_eq!(List(&found.new_frontends).to_string(), "[10.0.0.1:82/TCP ClusterIP]");
        assert_eq!(List(&found.gone_frontends).to_string(), "[10.0.0.1:80/TCP ClusterIP]");
        assert_eq!(refuses(&plan(&[], 0, &[80])), Some("no-endpoints"));
    }

    #[test]
    fn a_line_names_the_first_few_and_counts_the_rest() {
        let many: Vec<SocketAddr> = (1..=250).map(|host| socket((address(host), Port::new(80)))).collect();
        let line = named(&many);
        assert!(
            line.starts_with("[10.0.0.1:80, 10.0.0.2:80, ") && line.ends_with("10.0.0.10:80, and 240 more]"),
            "{line}"
        );
        assert!(line.len() < 200);
    }
}
