//! Keeps the plan equal to the objects, at the cost of the change.
//!
//! A change touches some Services; those are planned anew from the store, and others only if a frontend changed hands
//! between them and a touched one. The result is compared with the last plan, and only differences are returned. A
//! plan never depends on the order in which changes came (but for `default/kubernetes`, whose endpoints outlive their
//! slices).
//!
//! It returns nothing before every source has reported everything once: half of a cluster is not a plan.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use proxy_common::{Address, FrontendKey};

use super::{
    Changes, HealthCheck, NodePortAddresses, PodWishes, ServicePlan, ServicePortId, Tally,
    addresses::Addresses,
    api_server,
    claims::{Claimant, Claims, Created},
    draft::{Draft, drafts},
    frontends,
    health_checks::{HealthCheckCount, count},
    node_addresses::NodeAddresses,
    planned::Planned,
    precedence::{goes_first, is_api_server},
    problems::{Origin, Problems},
    recalled::{Known, Recalled},
    view::View,
};
use crate::memory::shrink;
use crate::model::{
    EndpointSlice, Event, Flaw, Kind, Object, ObjectKey, ObjectName, Packed, Pod, Problem, Service, Store,
    Touched,
};

/// Turns what sources say into what the node installs.
#[derive(Debug)]
pub struct Planner {
    node_name: Box<str>,
    store: Store,
    node_addresses: NodeAddresses,
    planned: HashMap<ObjectName, Packed<Planned>>,
    /// Services that the first, complete plan has not come to yet, the next one last.
    unplanned: Vec<ObjectName>,
    claims: Claims,
    addresses: Addresses,
    problems: Problems,
    /// What an earlier agent installed.
    recalled: Recalled,
    /// Why restricted LoadBalancer IPs cannot be served, if they cannot (ST-8).
    cannot_restrict: Option<&'static str>,
    /// What load balancers ask about, by Service (HE-3).
    health_checks: BTreeMap<ObjectName, Vec<HealthCheckCount>>,
    /// Whether the node was seen and is not leaving (HE-1). A Node that is deleted changes nothing.
    node_eligible: bool,
    tally: Tally,
    synced: bool,
}

/// How many Services a part of the first plan has: few enough that the agent never holds a second copy of a large
/// cluster.
const PART: usize = 1024;

/// What changes concern, all together.
#[derive(Default)]
struct Concerned {
    everything: bool,
    services: BTreeSet<ObjectName>,
}

impl Concerned {
    fn add(&mut self, touched: Touched) {
        match touched {
            Touched::Nothing => {}
            Touched::Services(names) => self.services.extend(names),
            Touched::Everything => self.everything = true,
        }
    }
}

impl Planner {
    /// Plans for the node of this name (EP-5: `--node-name`, or the host name in lower case).
    pub fn new(node_name: &str) -> Self {
        Self {
            node_name: node_name.into(),
            store: Store::new(node_name),
            node_addresses: NodeAddresses::default(),
            planned: HashMap::new(),
            unplanned: Vec::new(),
            claims: Claims::default(),
            addresses: Addresses::default(),
            problems: Problems::default(),
            recalled: Recalled::default(),
            cannot_restrict: None,
            health_checks: BTreeMap::new(),
            node_eligible: false,
            tally: Tally::default(),
            synced: false,
        }
    }

    /// Sets the addresses at which the node answers NodePorts (CF-8, CF-11). Call it once, first.
    pub fn set_node_port_addresses(&mut self, chosen: NodePortAddresses) {
        self.node_addresses.choose(chosen, &mut self.addresses);
    }

    /// Sets the reason why clients cannot be identified here, if they cannot: restricted LoadBalancer IPs are then left
    /// to the load balancer (ST-8). Call it first.
    pub fn set_cannot_restrict(&mut self, why: Option<&'static str>) {
        self.cannot_restrict = why;
    }

    /// Whether the Node of this node's name is known (IN-5).
    pub fn knows_node(&self) -> bool {
        self.store.node().is_some()
    }

    /// The addresses of the Node object, `InternalIP` and `ExternalIP`.
    pub fn node_addresses(&self) -> &[Address] {
        self.store.node().map(|node| &*node.addresses).unwrap_or_default()
    }

    /// Whether load balancers may send new connections to the node (HE-1).
    pub fn is_node_eligible(&self) -> bool {
        self.node_eligible
    }

    /// Where load balancers ask which Services have endpoints here (HE-3), in order.
    pub fn health_checks(&self) -> Vec<HealthCheck> {
        let listening = self.node_addresses.listening();
        let checks = self.health_checks.iter();
        checks.flat_map(|(name, counts)| counts.iter().map(|count| count.on(name, &listening))).collect()
    }

    /// Gives back the room of what is gone.
    pub fn shrink(&mut self) {
        self.store.shrink();
        self.claims.shrink();
        self.addresses.shrink();
        shrink(&mut self.planned);
        self.unplanned = Vec::new();
    }

    /// What has come in since the last call.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// Tells which plan was in effect before the agent was started. It matters for `default/kubernetes`, whose endpoints
    /// are kept if none is known, and for Services of which something is unread. Before [`Event::Synced`].
    pub fn recall(&mut self, plan: ServicePlan) {
        self.recalled.add(plan);
    }

    /// Takes in what sources say. Nothing comes out before [`Event::Synced`], which gives the whole plan, or the first
    /// part of it: as long as there are more, [`Planner::next_part`] has to be called before anything else.
    pub fn apply(&mut self, events: impl IntoIterator<Item = Event>) -> Changes {
        let mut touched = Concerned::default();
        let mut complete = false;
        for event in events {
            match event {
                Event::Upsert(object) => touched.add(self.upsert(object)),
                Event::Delete(key) => touched.add(self.delete(&key)),
                Event::Found { subject, flaws } => self.problems.set(Origin::Source(subject), &flaws),
                Event::Unread(unread) => touched.services.extend(self.recalled.set_unread(unread)),
                Event::PodsListed => self.store.know_pods(),
                Event::Synced => complete = !self.synced,
            }
        }
        if complete {
            self.synced = true;
            return self.begin();
        }
        if !self.synced {
            return Changes::default();
        }
        let changes = self.recompute(touched);
        Changes { pods: self.take_wishes(), ..changes }
    }

    /// Takes an object in; which Services it concerns.
    fn upsert(&mut self, object: Object) -> Touched {
        let key = object.key();
        self.problems.set(Origin::Object(key.clone()), object.flaws());
        if let Object::Node(node) = &object
            && node.name == self.node_name
        {
            self.node_eligible = !node.leaving;
        }
        let triggered = match &object {
            Object::EndpointSlice(slice) => slice.triggered,
            Object::Service(_) | Object::Node(_) | Object::Pod(_) => 0,
        };
        let touched = self.store.upsert(object);
        self.tally.note(key.kind, &touched, triggered);
        touched
    }

    /// What Pods say about their sockets, if that has changed.
    fn take_wishes(&mut self) -> Option<PodWishes> {
        self.store.take_wishes().map(Iterator::collect)
    }

    /// This node's Pods, if they have changed since the last call.
    pub fn take_pods(&mut self) -> Option<impl Iterator<Item = &Pod>> {
        self.store.take_pods()
    }

    /// Forgets an object; which Services it concerned.
    fn delete(&mut self, key: &ObjectKey) -> Touched {
        self.problems.set(Origin::Object(key.clone()), &[]);
        if key.kind == Kind::Service {
            // One that installs nothing is not among those that are planned anew with all.
            self.problems.set(Origin::Plan(key.name.clone()), &[]);
            self.health_checks.remove(&key.name);
        }
        let touched = self.store.delete(key);
        self.tally.note(key.kind, &touched, 0);
        touched
    }

    /// Sets the addresses of the node's interfaces (without those of `kube-ipvs0`, which stand for
    /// Services). They are the node's own for PO-18; and NodePorts are answered on them if there is no Node
    /// object that says where.
    pub fn set_local_addresses(&mut self, addresses: Vec<IpAddr>) -> Changes {
        if !self.node_addresses.set_local(addresses) || !self.synced {
            return Changes::default();
        }
        self.recompute(Concerned { everything: true, ..Concerned::default() })
    }

    /// The whole plan.
    pub fn full(&mut self) -> Changes {
        self.addresses.take_changes();
        let mut install: Vec<ServicePlan> = self.plans().collect();
        install.sort_unstable_by(ServicePlan::order);
        Changes { complete: true, install, addresses: self.addresses.all(), ..Changes::default() }
    }

    /// Every plan, in no particular order.
    pub fn plans(&self) -> impl Iterator<Item = ServicePlan> {
        self.planned.keys().flat_map(|name| self.planned(name).plans)
    }

    /// What a Service has.
    fn planned(&self, name: &ObjectName) -> Planned {
        let mut planned = self.planned.get(name).map(Packed::get).unwrap_or_default();
        for plan in &mut planned.plans {
            plan.id.service = name.clone();
        }
        planned
    }

    /// Begins the first, complete plan.
    fn begin(&mut self) -> Changes {
        self.update_own_addresses();
        self.unplanned = self.store.service_names().chain(self.recalled.concerned()).cloned().collect();
        self.unplanned.sort_unstable_by(|a, b| (goes_first(a), b).cmp(&(goes_first(b), a)));
        self.unplanned.dedup();
        for name in self.unplanned.clone() {
            self.update_claims(&name);
        }
        self.next_part()
    }

    /// The next part of the first, complete plan.
    pub fn next_part(&mut self) -> Changes {
        let rest = self.unplanned.len().saturating_sub(PART);
        let mut changes = Changes::default();
        for name in self.unplanned.split_off(rest) {
            self.update_plans(&name, &mut changes);
        }
        changes.install.sort_unstable_by(ServicePlan::order);
        changes.more = rest > 0;
        changes.complete = rest == 0;
        self.addresses.take_changes();
        if changes.complete {
            changes.addresses = self.addresses.all();
            changes.pods = self.take_wishes();
        }
        changes
    }

    /// How many parts of the first, complete plan follow.
    pub fn parts_left(&self) -> usize {
        self.unplanned.len().div_ceil(PART)
    }

    /// What could not be used of the current objects, sorted.
    pub fn problems(&self) -> Vec<Problem> {
        self.problems.list()
    }

    /// Whether every source has reported everything once.
    pub fn is_synced(&self) -> bool {
        self.synced
    }

    fn recompute(&mut self, touched: Concerned) -> Changes {
        let Concerned { everything, services: mut names } = touched;
        if everything {
            self.update_own_addresses();
            names = self.store.service_names().chain(self.planned.keys()).cloned().collect();
        } else if names.is_empty() {
            return Changes::default();
        }
        // They give way to whatever is known.
        names.extend(self.recalled.concerned().cloned());
        let mut concerned = BTreeSet::new();
        for name in &names {
            concerned.append(&mut self.update_claims(name));
        }
        names.append(&mut concerned);

        let mut changes = Changes::default();
        for name in &names {
            self.update_plans(name, &mut changes);
        }
        changes.install.sort_unstable_by(ServicePlan::order);
        changes.remove.sort_unstable();
        changes.addresses = self.addresses.take_changes();
        changes
    }

    fn update_own_addresses(&mut self) {
        let of_node = self.store.node().map(|node| &*node.addresses).unwrap_or_default();
        self.node_addresses.update(of_node, &mut self.addresses);
    }

    fn view(&self) -> View<'_> {
        View {
            node: &self.node_name,
            zone: self.store.node().and_then(|node| node.zone.as_deref()),
            own_addresses: self.node_addresses.own(),
            addresses: match self.store.node() {
                Some(node) if !node.addresses.is_empty() => &node.addresses,
                _ => self.node_addresses.local(),
            },
            cannot_restrict: self.cannot_restrict,
        }
    }

    /// First pass: which frontends does the Service ask for now? Gives the other Services concerned.
    fn update_claims(&mut self, name: &ObjectName) -> BTreeSet<ObjectName> {
        let mut after: Vec<(FrontendKey, Claimant)> = Vec::new();
        if let Some(service) = self.store.service(name) {
            for Draft { port, wants, .. } in drafts(&service, self.view()) {
                let created = Created::at(service.created);
                let claimant = Claimant { created, service: name.clone(), port: port.index };
                after.extend(wants.iter().map(|want| (want.key, claimant.clone())));
            }
        }
        // The second pass, which always follows, notes what it asks for now.
        let before = self.planned(name).claims();
        self.claims.replace(name, &before, &after)
    }

    /// Second pass: what does the Service install now, and what of it is new?
    fn update_plans(&mut self, name: &ObjectName, changes: &mut Changes) {
        let before: BTreeMap<ServicePortId, ServicePlan> =
            self.planned(name).plans.into_iter().map(|plan| (plan.id.clone(), plan)).collect();
        let (mut plans, mut flaws, mut claims) = (Vec::new(), Vec::new(), Vec::new());
        let (mut counts, mut known) = (Vec::new(), Known::NoService);
        if let Some(service) = &self.store.service(name) {
            let slices = self.store.slices_of(name);
            known = if slices.is_empty() { Known::NoSlices } else { Known::Slices };
            (plans, flaws) = self.plan(service, &slices, &mut claims);
            counts = count(service, &slices, self.view());
        }
        if counts.is_empty() {
            self.health_checks.remove(name);
        } else {
            self.health_checks.insert(name.clone(), counts);
        }
        let is_taken = |key: &FrontendKey| self.claims.owner(key).is_some();
        flaws.extend(self.recalled.keep(name, known, &mut plans, is_taken));
        if is_api_server(name) {
            flaws.extend(self.keep_api_server_open(&mut plans, &before));
        }
        self.problems.set(Origin::Plan(name.clone()), &flaws);
        plans.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        self.note_differences(before, &plans, changes);
        let planned = Planned::new(plans, claims.into());
        if planned.is_nothing() {
            self.planned.remove(name);
        } else {
            self.planned.insert(name.clone(), Packed::new(&planned));
        }
    }

    /// Keeps the last endpoints of `default/kubernetes`.
    fn keep_api_server_open(
        &self,
        plans: &mut Vec<ServicePlan>,
        before: &BTreeMap<ServicePortId, ServicePlan>,
    ) -> Vec<Flaw> {
        let mut flaws = Vec::new();
        plans.retain_mut(|plan| {
            let last = before.get(&plan.id).or_else(|| self.recalled.get(&plan.id));
            let (kept, flaw) = api_server::keep_open(plan.clone(), last);
            flaws.extend(flaw);
            kept.is_some_and(|kept| {
                *plan = kept;
                true
            })
        });
        flaws
    }

    /// Adds to `changes` what of a Service's plans is new, is different, or is gone.
    fn note_differences(
        &mut self,
        mut before: BTreeMap<ServicePortId, ServicePlan>,
        plans: &[ServicePlan],
        changes: &mut Changes,
    ) {
        for plan in plans {
            let last = before.remove(&plan.id);
            if last.as_ref() != Some(plan) {
                changes.install.push(plan.clone());
                self.addresses.add_plan(plan);
                if let Some(last) = last {
                    self.addresses.subtract_plan(&last);
                }
            }
        }
        for (id, last) in before {
            self.addresses.subtract_plan(&last);
            changes.remove.push(id);
        }
    }

    /// The plans of a Service, what of it could not be planned, and the frontends that it asks for, in order.
    fn plan(
        &self,
        service: &Service,
        slices: &[EndpointSlice],
        claims: &mut Vec<FrontendKey>,
    ) -> (Vec<ServicePlan>, Vec<Flaw>) {
        let (name, view) = (&service.name, self.view());
        let mut flaws = frontends::withheld(service, view);
        let mut plans = Vec::new();
        for draft in drafts(service, view) {
            let port = draft.port;
            let owner = |key: &FrontendKey| {
                self.claims.owner(key).filter(|owner| owner.service != *name || owner.port != port.index)
            };
            for want in &draft.wants {
                if let Some(owner) = owner(&want.key) {
                    flaws.push(Flaw::new(
                        want.field(port),
                        format!(
                            "{} belongs to Service {} (spec.ports[{}]), which comes first by age and name; \
                             use another address or port here, or remove it there",
                            want.key, owner.service, owner.port
                        ),
                    ));
                }
            }
            claims.extend(draft.wants.iter().map(|want| want.key));
            plans.extend(draft.plan(service, slices, view, |want| owner(&want.key).is_none()));
        }
        claims.sort_unstable();
        claims.dedup();
        (plans, flaws)
    }
}

#[cfg(test)]
#[path = "planner_tests.rs"]
mod tests;
