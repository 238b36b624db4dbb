//! The planner on small clusters: what comes out of each change.

use proxy_common::{AddressBits, Protocol, Reason};
use serde_json::{Value, json};

use super::*;
use crate::{
    model::{EndpointSlice, Kind, Node, Object, ObjectKey, Subject, Unread},
    plan::{Family, Target, testing},
};

fn service(name: &str, spec: Value) -> Event {
    aged(name, "2024-01-01T00:00:00Z", spec)
}

#[expect(clippy::needless_pass_by_value, reason = "callers write `json!` in place")]
fn aged(name: &str, created: &str, spec: Value) -> Event {
    let metadata = json!({"name": name, "namespace": "default", "creationTimestamp": created});
    let object = testing::service_object(json!({"metadata": metadata, "spec": spec}));
    Event::Upsert(Object::Service(object))
}

fn slice(name: &str, service: &str, hosts: &[&str]) -> Event {
    let endpoints: Vec<Value> = hosts.iter().map(|host| json!({"addresses": [host]})).collect();
    let ports = json!([{"name": "", "port": 8080}]);
    Event::Upsert(Object::EndpointSlice(testing::slice(name, service, "IPv4", ports, json!(endpoints))))
}

fn node(zone: &str, addresses: &[&str]) -> Event {
    let listed: Vec<Value> =
        addresses.iter().map(|address| json!({"type": "InternalIP", "address": address})).collect();
    let wire = json!({
        "metadata": {"name": "n1", "labels": {"topology.kubernetes.io/zone": zone}},
        "status": {"addresses": listed},
    });
    Event::Upsert(Object::Node(Node::read(serde_json::from_value(wire).expect("a Node"))))
}

fn delete(kind: Kind, name: &str) -> Event {
    let namespace = if kind == Kind::Node { "" } else { "default" };
    Event::Delete(ObjectKey::new(kind, ObjectName::new(namespace, name)))
}

fn web(ip: &str) -> Value {
    json!({"clusterIP": ip, "ports": [{"port": 80}]})
}

/// A planner that has everything of `events`.
fn synced(events: impl IntoIterator<Item = Event>) -> (Planner, Changes) {
    let mut planner = Planner::new("n1");
    let changes = planner.apply(events.into_iter().chain([Event::Synced]));
    (planner, changes)
}

fn installed(changes: &Changes) -> Vec<String> {
    changes.install.iter().map(|plan| plan.id.to_string()).collect()
}

fn address(text: &str) -> Address {
    text.parse::<IpAddr>().expect("an address").into()
}

/// IN-7: nothing before everything is known, and then all of it.
#[test]
fn nothing_comes_out_before_the_sources_are_synced() {
    let mut planner = Planner::new("n1");
    assert!(planner.apply([service("web", web("10.0.0.1"))]).is_empty());
    assert!(planner.set_local_addresses(vec!["192.168.0.1".parse().expect("an address")]).is_empty());
    assert!(!planner.is_synced());
    let changes = planner.apply([slice("web-1", "web", &["10.1.0.1"]), Event::Synced]);
    assert!(changes.complete);
    assert_eq!(installed(&changes), ["default/web/TCP"]);
    assert_eq!(changes.install[0].cluster, Target::Endpoints(0..1));
    assert_eq!(
        changes.addresses,
        [(address("10.0.0.1"), AddressBits::CLUSTER_IP), (address("192.168.0.1"), AddressBits::NODE)]
    );
    assert!(planner.apply([Event::Synced]).is_empty());
}

#[test]
fn a_change_gives_only_what_it_changes() {
    let (mut planner, _) = synced([
        service("web", web("10.0.0.1")),
        service("api", web("10.0.0.2")),
        slice("web-1", "web", &["10.1.0.1"]),
    ]);
    let changes = planner.apply([slice("web-1", "web", &["10.1.0.1", "10.1.0.2"])]);
    assert_eq!(installed(&changes), ["default/web/TCP"]);
    assert!(changes.remove.is_empty() && changes.addresses.is_empty() && !changes.complete);

    // EP-7, IN-9: another order of the same, and what comes to nothing, give nothing.
    assert!(planner.apply([slice("web-1", "web", &["10.1.0.2", "10.1.0.1"])]).is_empty());
    assert!(
        planner
            .apply([slice("web-1", "web", &[]), slice("web-1", "web", &["10.1.0.1", "10.1.0.2"])])
            .is_empty()
    );
    assert!(planner.apply([slice("x", "unknown", &["10.1.0.1"])]).is_empty());

    let changes = planner.apply([delete(Kind::Service, "web")]);
    assert_eq!(changes.remove.len(), 1);
    assert_eq!(changes.addresses, [(address("10.0.0.1"), AddressBits::NONE)]);
    assert!(changes.install.is_empty());
}

/// EP-12: hints decide, and neither the Service's `trafficDistribution` nor its annotations, which the producer of
/// hints has read already.
#[test]
fn only_hints_keep_traffic_near() {
    let near = |metadata: Value, distribution: Value| {
        let mut metadata = metadata;
        metadata["name"] = "web".into();
        metadata["namespace"] = "default".into();
        let spec =
            json!({"clusterIP": "10.0.0.1", "ports": [{"port": 80}], "trafficDistribution": distribution});
        Event::Upsert(Object::Service(testing::service_object(json!({"metadata": metadata, "spec": spec}))))
    };
    let slice = |hinted: bool| {
        let endpoint = |host: &str, zone: &str, node: &str| {
            let hints = json!({"forZones": [{"name": zone}], "forNodes": [{"name": node}]});
            json!({"addresses": [host], "zone": zone, "nodeName": node, "hints": if hinted { hints } else { Value::Null }})
        };
        let endpoints = json!([endpoint("10.1.0.1", "a", "n1"), endpoint("10.1.0.2", "b", "n2")]);
        let ports = json!([{"name": "", "port": 8080}]);
        Event::Upsert(Object::EndpointSlice(testing::slice("web-1", "web", "IPv4", ports, endpoints)))
    };
    let mode = json!({"annotations": {"service.kubernetes.io/topology-mode": "Auto"}});
    for (metadata, distribution, hinted, expected) in [
        (json!({}), json!("PreferSameNode"), false, 2),
        (json!({}), json!("PreferClose"), false, 2),
        (mode, Value::Null, false, 2),
        (json!({}), Value::Null, true, 1),
    ] {
        let events = [near(metadata, distribution.clone()), slice(hinted), node("a", &["192.168.0.1"])];
        let (_, changes) = synced(events);
        assert_eq!(changes.install[0].cluster, Target::Endpoints(0..expected), "{distribution} {hinted}");
    }
}

/// PO-1: a Service without endpoints is installed, and refuses.
#[test]
fn a_service_without_endpoints_refuses() {
    let (mut planner, changes) = synced([service("web", web("10.0.0.1"))]);
    assert_eq!(changes.install[0].cluster, Target::Refuse(Reason::NoEndpoints));
    let changes = planner.apply([slice("web-1", "web", &["10.1.0.1"])]);
    assert_eq!(changes.install[0].cluster, Target::Endpoints(0..1));
}

/// FE-6: one owner, a problem for the other, and a take-over in the same change.
#[test]
fn overlapping_frontends_have_one_owner() {
    let spec = |ip: &str| json!({"clusterIP": ip, "externalIPs": ["192.0.2.1"], "ports": [{"port": 80, "nodePort": 30080}]});
    let (mut planner, changes) = synced([
        aged("a", "2024-01-02T00:00:00Z", spec("10.0.0.1")),
        aged("b", "2024-01-01T00:00:00Z", spec("10.0.0.2")),
    ]);
    let frontends = |changes: &Changes, name: &str| {
        let plan = changes.install.iter().find(|plan| plan.id.service.name() == name).expect("installed");
        plan.frontends.iter().map(|(key, _)| key.to_string()).collect::<Vec<_>>()
    };
    let all = ["node-IPv4:30080/TCP", "10.0.0.2:80/TCP", "192.0.2.1:80/TCP"];
    assert_eq!(frontends(&changes, "a"), ["10.0.0.1:80/TCP"]);
    assert_eq!(frontends(&changes, "b"), all);
    let problems = planner.problems();
    let fields: Vec<&str> = problems.iter().map(|problem| problem.field.as_str()).collect();
    assert_eq!(fields, ["spec.externalIPs[0]", "spec.ports[0].nodePort"]);
    assert!(
        problems
            .iter()
            .all(|p| p.subject.to_string() == "Service default/a" && p.message.contains("default/b"))
    );

    let changes = planner.apply([delete(Kind::Service, "b")]);
    assert_eq!(frontends(&changes, "a").len(), 3);
    assert_eq!(changes.remove.len(), 1);
    assert_eq!(changes.addresses, [(address("10.0.0.2"), AddressBits::NONE)], "192.0.2.1 stays a VIP");
    assert!(planner.problems().is_empty());
}

/// FE-6: a Service that is left without any frontend is not installed, and comes back.
#[test]
fn a_service_that_owns_nothing_waits() {
    let (mut planner, changes) = synced([service("a", web("10.0.0.1")), service("b", web("10.0.0.1"))]);
    assert_eq!(installed(&changes), ["default/a/TCP"]);
    assert_eq!(planner.problems()[0].subject.to_string(), "Service default/b");
    let changes = planner.apply([service("a", web("10.0.0.9"))]);
    assert_eq!(installed(&changes), ["default/a/TCP", "default/b/TCP"]);
    assert!(planner.problems().is_empty());
}

/// PO-18: what is bound on the node is left alone, until it is not.
#[test]
fn a_cluster_ip_on_the_node_is_left_alone_while_it_is_there() {
    let (mut planner, _) = synced([service("dns", web("10.0.0.10"))]);
    let changes = planner.set_local_addresses(vec![IpAddr::from([10, 0, 0, 10])]);
    assert_eq!(changes.remove.len(), 1);
    assert_eq!(changes.addresses, [(address("10.0.0.10"), AddressBits::NODE)]);
    assert_eq!(planner.problems()[0].field, "spec.clusterIPs[0]");
    let changes = planner.set_local_addresses(Vec::new());
    assert_eq!(installed(&changes), ["default/dns/TCP"]);
    assert!(planner.problems().is_empty());
}

/// IN-5: the Node's addresses if there is one, else the interfaces'; never what is someone else's elsewhere.
#[test]
fn node_addresses_come_from_the_node_or_the_interfaces() {
    let (mut planner, _) = synced([]);
    let local = ["127.0.0.1", "192.168.0.1", "::1", "fe80::1", "fd00::1"];
    let local = local.map(|text| text.parse().expect("an address")).to_vec();
    let changes = planner.set_local_addresses(local);
    assert_eq!(
        changes.addresses,
        [(address("192.168.0.1"), AddressBits::NODE), (address("fd00::1"), AddressBits::NODE)]
            .into_iter()
            .collect::<BTreeMap<_, _>>()
            .into_iter()
            .collect::<Vec<_>>()
    );
    let changes = planner.apply([node("a", &["192.168.0.1", "203.0.113.1"])]);
    assert_eq!(
        changes.addresses.iter().copied().collect::<HashMap<_, _>>(),
        HashMap::from([(address("fd00::1"), AddressBits::NONE), (address("203.0.113.1"), AddressBits::NODE)])
    );
    let changes = planner.apply([delete(Kind::Node, "n1")]);
    assert_eq!(changes.addresses.len(), 2);
}

/// EP-11: a new zone of the node plans every Service anew.
#[test]
fn a_change_of_the_zone_changes_the_plans() {
    let endpoints = json!([
        {"addresses": ["10.1.0.1"], "hints": {"forZones": [{"name": "a"}]}},
        {"addresses": ["10.1.0.2"], "hints": {"forZones": [{"name": "b"}]}},
    ]);
    let ports = json!([{"name": "", "port": 8080}]);
    let slice = testing::slice("web-1", "web", "IPv4", ports, endpoints);
    let (mut planner, changes) = synced([
        service("web", web("10.0.0.1")),
        Event::Upsert(Object::EndpointSlice(slice)),
        node("a", &[]),
    ]);
    assert_eq!(changes.install[0].cluster, Target::Endpoints(0..1));
    assert_eq!(changes.install[0].endpoints[0].address, address("10.1.0.1"));
    assert_eq!(changes.install[0].endpoints.len(), 2, "the other one still serves");
    let changes = planner.apply([node("b", &[])]);
    assert_eq!(changes.install[0].endpoints[0].address, address("10.1.0.2"));
}

/// The way to the API server stays open.
#[test]
fn the_api_server_keeps_its_last_endpoints() {
    let (mut planner, changes) =
        synced([service("kubernetes", web("10.0.0.1")), slice("kubernetes", "kubernetes", &["192.168.0.1"])]);
    assert_eq!(changes.install[0].endpoints.len(), 1);
    assert!(planner.apply([slice("kubernetes", "kubernetes", &[])]).is_empty());
    assert_eq!(planner.problems().len(), 1);
    assert!(planner.apply([delete(Kind::EndpointSlice, "kubernetes")]).is_empty());
    let changes = planner.apply([service("kubernetes", web("10.0.0.2"))]);
    assert_eq!(changes.install[0].cluster, Target::Endpoints(0..1));
    let changes = planner.apply([slice("kubernetes", "kubernetes", &["192.168.0.2"])]);
    assert_eq!(changes.install[0].endpoints[0].address, address("192.168.0.2"));
    assert!(planner.problems().is_empty());
    assert_eq!(planner.apply([delete(Kind::Service, "kubernetes")]).remove.len(), 1);
}

/// The same across a restart of the agent; and without any memory the address is left alone.
#[test]
fn the_api_server_is_never_refused() {
    let (mut planner, changes) =
        synced([service("kubernetes", web("10.0.0.1")), slice("kubernetes", "kubernetes", &["192.168.0.1"])]);
    let before = changes.install[0].clone();

    let mut restarted = Planner::new("n1");
    restarted.recall(before.clone());
    let changes = restarted.apply([service("kubernetes", web("10.0.0.1")), Event::Synced]);
    assert_eq!(changes.install, [before]);

    let (without, changes) = synced([service("kubernetes", web("10.0.0.1"))]);
    assert!(changes.install.is_empty() && changes.addresses.is_empty());
    assert_eq!(without.problems().len(), 1);
    assert!(planner.full().complete);
}

/// A huge slice works, and is named.
#[test]
fn problems_of_objects_last_as_long_as_they_do() {
    let hosts: Vec<String> = (0..5000).map(|i| format!("10.1.{}.{}", i / 250, i % 250)).collect();
    let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
    let (mut planner, changes) = synced([service("web", web("10.0.0.1")), slice("web-1", "web", &hosts)]);
    assert_eq!(changes.install[0].endpoints.len(), EndpointSlice::LIMIT);
    let problems = planner.problems();
    assert_eq!(problems.len(), 1);
    assert_eq!(
        (problems[0].subject.to_string().as_str(), problems[0].field.as_str()),
        ("EndpointSlice default/web-1", "endpoints")
    );
    planner.apply([slice("web-1", "web", &hosts[..10])]);
    assert!(planner.problems().is_empty());

    let found = |flaws: Vec<Flaw>| Event::Found { subject: Subject::File { file: "web.yaml".into() }, flaws };
    planner.apply([found(vec![Flaw::new("line 3", "bad")])]);
    assert_eq!(planner.problems()[0].subject.to_string(), "web.yaml");
    planner.apply([found(Vec::new())]);
    assert!(planner.problems().is_empty());
}

/// FE-1, IN-10: two families are two plans of one port.
#[test]
fn a_dual_stack_service_has_a_plan_in_each_family() {
    let spec = json!({"clusterIPs": ["10.0.0.1", "fd00::1"], "ports": [{"port": 80}]});
    let (_, changes) = synced([service("web", spec), slice("web-1", "web", &["10.1.0.1"])]);
    let ids: Vec<_> = changes.install.iter().map(|plan| (plan.id.family, plan.id.protocol)).collect();
    assert_eq!(ids, [(Family::V4, Protocol::Tcp), (Family::V6, Protocol::Tcp)]);
    assert_eq!(changes.install[1].cluster, Target::Refuse(Reason::NoEndpoints));
}

/// Restarted while something cannot be read: what nothing readable says stays as it was, and only that.
#[test]
fn what_cannot_be_read_after_a_restart_stays_as_it_was() {
    let (_, before) = synced([
        service("a", web("10.0.0.1")),
        slice("a-1", "a", &["10.1.0.1"]),
        service("b", web("10.0.0.2")),
        slice("b-1", "b", &["10.1.0.2"]),
        service("c", web("10.0.0.3")),
        slice("c-1", "c", &["10.1.0.3"]),
    ]);
    let restarted = |unread: Unread, events: Vec<Event>| {
        let mut planner = Planner::new("n1");
        before.install.iter().cloned().for_each(|plan| planner.recall(plan));
        let changes = planner.apply(events.into_iter().chain([Event::Unread(unread), Event::Synced]));
        (planner, changes)
    };
    // Of `a` nothing can be read, of `b` no slice; `c` has changed.
    let readable = || {
        vec![service("b", web("10.0.0.2")), service("c", web("10.0.0.3")), slice("c-1", "c", &["10.1.0.9"])]
    };
    let (mut planner, changes) = restarted(Unread::anything(), readable());
    assert_eq!(changes.install[..2], before.install[..2]);
    assert_eq!(changes.install[2].endpoints[0].address, address("10.1.0.9"));
    let named: Vec<String> = planner.problems().iter().map(|problem| problem.subject.to_string()).collect();
    assert_eq!(named, ["Service default/a", "Service default/b"]);
    assert_eq!(changes.addresses.len(), 3, "the ClusterIP of `a` still refuses unknown ports");
    // Everything is planned anew, and `a` is there still.
    assert!(planner.apply([node("z", &[])]).remove.is_empty());
    // Somebody else takes its address: known ones come first.
    let changes = planner.apply([service("d", web("10.0.0.1")), slice("d-1", "d", &["10.1.0.4"])]);
    assert_eq!((installed(&changes), changes.remove.len()), (vec!["default/d/TCP".to_owned()], 1));

    // The file can be read, and has one of them.
    let (mut planner, _) = restarted(Unread::anything(), readable());
    let read = [slice("b-1", "b", &["10.1.0.2"]), Event::Unread(Unread::default())];
    let changes = planner.apply(read);
    assert_eq!((installed(&changes), changes.remove.len()), (Vec::new(), 1));
    assert_eq!(changes.addresses, [(address("10.0.0.1"), AddressBits::default())]);
    assert!(planner.problems().is_empty());

    // Only the endpoints of `b` are unread: `a` was deleted while no agent ran.
    let (_, changes) = restarted(Unread::of(ObjectName::new("default", "b")), readable());
    assert_eq!(installed(&changes), ["default/b/TCP", "default/c/TCP"]);
    assert_eq!(changes.install[0], before.install[1]);
}
