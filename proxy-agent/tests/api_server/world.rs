//! A cluster that changes, its API server, and the plan of a node.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use kube::Client;
use proxy_agent::{
    plan::{Changes, Planner, ServicePlan, ServicePortId},
    source::{self, Batch},
};
use serde_json::{Value, json};
use sidestep_tests::api_server::{Kind, Objects};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};

/// The node that is planned for.
const NODE: &str = "n1";

/// An endpoint of a Service: its name, and the last number of the pod's address.
pub(crate) type Endpoint = (String, u8);

/// Server, cluster and node.
pub(crate) struct World {
    pub(crate) objects: Objects,
    pub(crate) node: Node,
    services: BTreeSet<String>,
    slices: BTreeMap<String, (String, Vec<u8>)>,
    /// What has not existed all the time since it came into being: only this may leave the plan.
    interrupted: BTreeSet<Endpoint>,
    /// Services that were deleted, of which the node may not have heard yet: whatever they have now may leave the plan when it
    /// does, if it hears of their return apart.
    deleted: BTreeSet<String>,
    changes: u32,
}

/// A node that follows the server.
pub(crate) struct Node {
    planner: Planner,
    pub(crate) installed: BTreeMap<ServicePortId, ServicePlan>,
    batches: mpsc::Receiver<Batch>,
    following: JoinHandle<()>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.following.abort();
    }
}

impl Node {
    /// Starts to follow the objects.
    fn start(objects: &Objects) -> Self {
        let objects = objects.clone();
        let service = tower::service_fn(move |request| {
            let objects = objects.clone();
            async move { objects.respond(request).await }
        });
        let (sender, batches) = mpsc::channel(256);
        let client = Client::new(service, "default");
        let following = tokio::spawn(async move { source::kube::run(client, NODE, sender).await });
        Self { planner: Planner::new(NODE), installed: BTreeMap::new(), batches, following }
    }

    fn take(&mut self, batch: Batch) {
        let mut changes = self.planner.apply(batch);
        while changes.more {
            self.install(changes);
            changes = self.planner.next_part();
        }
        self.install(changes);
    }

    fn install(&mut self, changes: Changes) {
        let Changes { install, remove, .. } = changes;
        for id in remove {
            assert!(self.installed.remove(&id).is_some(), "{id} is removed, but was not there");
        }
        self.installed.extend(install.into_iter().map(|plan| (plan.id.clone(), plan)));
    }

    /// What is installed, in short.
    pub(crate) fn endpoints(&self) -> BTreeSet<Endpoint> {
        let endpoints = |plan: &ServicePlan| {
            let name = plan.id.service.name().to_owned();
            let of_endpoint = move |address: IpAddr| match address {
                IpAddr::V4(v4) => (name.clone(), v4.octets()[3]),
                IpAddr::V6(v6) => panic!("unexpected {v6}"),
            };
            plan.endpoints
                .iter()
                .map(move |endpoint| of_endpoint(endpoint.address.into()))
                .collect::<Vec<_>>()
        };
        self.installed.values().flat_map(endpoints).collect()
    }

    pub(crate) fn is_synced(&self) -> bool {
        self.planner.is_synced()
    }

    pub(crate) fn knows_node(&self) -> bool {
        self.planner.knows_node()
    }

    pub(crate) fn problems(&self) -> Vec<String> {
        self.planner.problems().iter().map(ToString::to_string).collect()
    }
}

impl World {
    /// Three Services with three endpoints each, installed.
    pub(crate) async fn new() -> Self {
        let mut world = Self::empty();
        world.populate();
        world.pass(Duration::from_secs(20)).await;
        assert_eq!(world.node.endpoints().len(), 9);
        world
    }

    /// Nothing at the server but the Node.
    pub(crate) fn empty() -> Self {
        let objects = Objects::default();
        objects.put(json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": NODE},
            "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.10"}]}}));
        let node = Node::start(&objects);
        Self {
            objects,
            node,
            services: BTreeSet::new(),
            slices: BTreeMap::new(),
            interrupted: BTreeSet::new(),
            deleted: BTreeSet::new(),
            changes: 0,
        }
    }

    /// Three Services with three endpoints each.
    pub(crate) fn populate(&mut self) {
        for name in ["a", "b", "c"] {
            self.put_service(name);
            self.put_slice(name, name, &[1, 2, 3]);
        }
    }

    /// So many more Services, each with an endpoint.
    pub(crate) fn crowd(&mut self, count: usize) {
        for number in 0..count {
            let name = format!("crowd-{number:04}");
            self.put_service(&name);
            self.put_slice(&name, &name, &[1]);
        }
    }

    pub(crate) fn put_service(&mut self, name: &str) {
        self.services.insert(name.to_owned());
        let number = name.bytes().fold(0_u16, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        let [high, low] = number.to_be_bytes();
        self.objects.put(json!({"kind": "Service", "apiVersion": "v1",
            "metadata": {"name": name, "namespace": "default", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"type": "ClusterIP", "clusterIP": format!("10.96.{high}.{low}"),
                "ports": [{"port": 80, "protocol": "TCP"}]}}));
    }

    pub(crate) fn put_slice(&mut self, name: &str, service: &str, hosts: &[u8]) {
        let before = self.existing();
        self.slices.insert(name.to_owned(), (service.to_owned(), hosts.to_vec()));
        self.interrupted.extend(before.difference(&self.existing()).cloned());
        let endpoints: Vec<Value> =
            hosts.iter().map(|host| json!({"addresses": [format!("10.244.0.{host}")]})).collect();
        self.objects.put(json!({"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1",
            "metadata": {"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4", "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
            "endpoints": endpoints}));
    }

    pub(crate) fn delete_service(&mut self, name: &str) {
        let before = self.existing();
        self.services.remove(name);
        self.deleted.insert(name.to_owned());
        self.interrupted.extend(before.difference(&self.existing()).cloned());
        self.objects.delete(Kind::Service, "default", name);
    }

    pub(crate) fn delete_slice(&mut self, name: &str) {
        let before = self.existing();
        self.slices.remove(name);
        self.interrupted.extend(before.difference(&self.existing()).cloned());
        self.objects.delete(Kind::EndpointSlice, "default", name);
    }

    /// The endpoints at the server.
    pub(crate) fn existing(&self) -> BTreeSet<Endpoint> {
        let slices = self.slices.values().filter(|(service, _)| self.services.contains(service));
        slices.flat_map(|(service, hosts)| hosts.iter().map(|host| (service.clone(), *host))).collect()
    }

    /// Something happens in the cluster, a little different each time; the endpoints 1 and 2 of `a` stay.
    pub(crate) fn change(&mut self) {
        self.changes += 1;
        let host = u8::try_from(10 + self.changes % 200).expect("a small number");
        match self.changes % 6 {
            0 => self.delete_service("c"),
            1 => self.put_slice("a", "a", &[1, 2, host]),
            2 => self.delete_slice("b"),
            3 => self.put_slice("b-2", "b", &[1, host]),
            4 => self.put_service("c"),
            _ => self.put_slice("c-2", "c", &[host, host + 1]),
        }
    }

    /// Time passes. Nothing that has always existed may leave the plan on the way.
    pub(crate) async fn pass(&mut self, time: Duration) {
        let until = Instant::now() + time;
        loop {
            tokio::select! {
                biased;
                batch = self.node.batches.recv() => self.take(batch.expect("the source goes on")),
                () = sleep_until(until) => return,
            }
        }
    }

    fn take(&mut self, batch: Batch) {
        let before = self.node.endpoints();
        self.node.take(batch);
        let after = self.node.endpoints();
        let may_leave =
            |endpoint: &Endpoint| self.interrupted.contains(endpoint) || self.deleted.contains(&endpoint.0);
        let lost: Vec<_> = before.difference(&after).filter(|endpoint| !may_leave(endpoint)).collect();
        assert!(lost.is_empty(), "lost, but always there: {lost:?}");
        let installed = &self.node.installed;
        self.deleted.retain(|name| installed.keys().any(|id| id.service.name() == name));
    }

    /// What an agent computes that starts now.
    pub(crate) async fn fresh_start(&self) -> BTreeMap<ServicePortId, ServicePlan> {
        let mut node = Node::start(&self.objects);
        while !node.is_synced() {
            let batch = timeout(Duration::from_secs(5), node.batches.recv()).await;
            node.take(batch.expect("a fresh start is soon complete").expect("the source goes on"));
        }
        std::mem::take(&mut node.installed)
    }

    /// Everything is right again, and then one thing more changes: how long until the plan is that of a fresh start?
    pub(crate) async fn recovers_within(&mut self, limit: Duration) -> Duration {
        self.objects.mend();
        self.change();
        let start = Instant::now();
        let expected = self.fresh_start().await;
        while self.node.installed != expected {
            let (has, right) = (self.node.endpoints(), self.existing());
            assert!(start.elapsed() < limit, "not right after {limit:?}: {has:?} instead of {right:?}");
            self.pass(Duration::from_secs(1)).await;
        }
        assert_eq!(self.node.endpoints(), self.existing());
        start.elapsed()
    }

    /// A change reaches the plan at once, when every kind has had the time to be tried again.
    pub(crate) async fn follows_at_once(&mut self) {
        self.pass(Duration::from_secs(35)).await;
        for _ in 0..6 {
            self.change();
            self.pass(Duration::from_millis(10)).await;
            assert_eq!(self.node.endpoints(), self.existing(), "not followed at once");
        }
    }

    /// How many requests there were so far: lists (their first pages and others), and watches.
    pub(crate) fn requests(&self) -> (usize, usize) {
        let asked = self.objects.asked();
        let watches = asked.iter().filter(|asked| asked.watch).count();
        (asked.len() - watches, watches)
    }

    /// How many requests there were since.
    pub(crate) fn requests_since(&self, (lists, watches): (usize, usize)) -> (usize, usize) {
        let now = self.requests();
        (now.0 - lists, now.1 - watches)
    }
}
