//! Tens of thousands of Services come and go, in tables for a few thousand at a time: indexes and ids are used again, and
//! the agent does not grow.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Instant,
};

use proxy_agent::dataplane::Tables;
use serde_json::{Value, json};
use sidestep_tests::{
    Agent, Lab,
    agent::NODE_NAME,
    api_server::{ApiServer, Kind, Objects},
    bpftool,
    cluster::Backend,
    eventually, lab,
    manifest::NAMESPACE,
    traffic::{ask, connect, is_refused},
};

/// How many Services, if `SIDESTEP_SERVICES` does not say so.
const SERVICES: u32 = 50_000;
/// How many there are at a time.
const BATCH: u32 = 1_000;
/// Sizes of the tables: an index, slot or id that is lost for each Service uses them up after two batches.
const CAPACITY: [&str; 3] = ["--max-services=2048", "--max-endpoints=2048", "--max-frontends=4096"];
/// By how much the agent's own memory may grow in the second half, in KiB.
const SLACK: u64 = 2048;

/// IN-5: Services that are deleted leave nothing: no index, id, slot, frontend, pin, descriptor or memory.
#[test]
fn services_that_were_deleted_leave_nothing() {
    let lab = lab!();
    let services =
        std::env::var("SIDESTEP_SERVICES").map_or(SERVICES, |text| text.parse().expect("a number"));
    let endpoint = Backend::start(lab.pod("endpoint").expect("a pod")).expect("servers");
    let client = lab.pod("client").expect("a pod");
    let objects = Objects::default();
    objects.put(json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": NODE_NAME},
        "status": {"addresses": [{"type": "InternalIP", "address": lab.node().v4}]}}));
    let server = ApiServer::start(lab.node().namespace(), objects).expect("an API server");
    let agent = Agent::following(&lab, &server).arguments(CAPACITY).started(&lab).expect("an agent");
    let pins = || bpftool::pinned_ids(lab.pin_directory()).expect("ids");
    // Opened anew each time: they grow for the first batch.
    let tables = || Tables::open(lab.pin_directory()).expect("the tables");
    let mut grown = None;

    let start = Instant::now();
    let rounds = services / BATCH;
    let mut memory = Vec::new();
    let mut descriptors = Vec::new();
    for round in 0..rounds {
        for number in 0..BATCH {
            server.put(service(round, number));
            server.put(slice(round, number, endpoint.place.v4));
        }
        let last = SocketAddr::new(address(BATCH - 1), 80);
        // Services and slices come by watches of their own.
        client.run(|| eventually("the last Service has its endpoint", || ask(last).is_ok()));
        eventually("all of them are there", || tables().names.keys().count() == BATCH as usize);
        if round % 10 == 0 {
            for number in (0..BATCH).step_by(97) {
                let one = SocketAddr::new(address(number), 80);
                client.run(|| eventually("each has its endpoint", || ask(one).is_ok()));
            }
        }
        let problems = agent.report().expect("a report").problems;
        assert!(problems.is_empty(), "round {round}: {problems:?}");
        for number in 0..BATCH {
            server.delete(Kind::EndpointSlice, NAMESPACE, &format!("{}-ipv4", name(round, number)));
            server.delete(Kind::Service, NAMESPACE, &name(round, number));
        }
        eventually("none of them is left", || tables().names.keys().count() == 0);
        if round == 1 {
            grown = Some(pins());
        }
        memory.push(agent.settled_memory().expect("its memory"));
        descriptors.push(agent.descriptors().expect("its descriptors"));
    }
    eprintln!(
        "{services} Services: {:.1} s; own memory in KiB {memory:?}, descriptors {descriptors:?}",
        start.elapsed().as_secs_f32()
    );
    let tables = tables();
    eventually("no frontend or address is left", || {
        let addresses = tables.addresses.keys().filter_map(Result::ok).map(IpAddr::from);
        tables.frontends.keys().count() == 0
            && addresses.filter(|address| address.to_string().starts_with("10.97.")).count() == 0
    });
    let ids =
        (1..tables.states.len()).filter(|id| tables.states.load(*id).is_some_and(|state| state.bits != 0));
    assert_eq!(ids.count(), 0, "endpoints are left");
    assert_eq!(Some(pins()), grown);
    let (first, second) = memory.split_at(memory.len() / 2);
    let most = |some: &[u64]| some.iter().max().copied().unwrap_or_default();
    assert!(most(second) <= most(first) + SLACK, "the agent's own memory grows: {memory:?}");
    // A look through the namespaces holds some for a moment; what leaks is there each time.
    let least = |some: &[usize]| some.iter().min().copied().unwrap_or_default();
    let (first, second) = descriptors.split_at(descriptors.len() / 2);
    assert!(least(second) <= least(first), "the agent's descriptors grow: {descriptors:?}");
    gone(&lab, &client);
}

/// Nothing leads anywhere.
fn gone(lab: &Lab, client: &sidestep_tests::Place) {
    let one = SocketAddr::new(address(1), 80);
    let result = client.run(|| connect(one));
    assert!(result.is_err() && !is_refused(&result), "{}: {result:?}", lab.name());
}

fn name(round: u32, number: u32) -> String {
    format!("service-{round}-{number}")
}

fn address(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(u32::from_be_bytes([10, 97, 0, 0]) + number).into()
}

fn service(round: u32, number: u32) -> Value {
    json!({"kind": "Service", "apiVersion": "v1", "metadata": {"name": name(round, number), "namespace": NAMESPACE},
        "spec": {"clusterIP": address(number), "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}})
}

fn slice(round: u32, number: u32, endpoint: Ipv4Addr) -> Value {
    let service = name(round, number);
    json!({"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "addressType": "IPv4",
        "metadata": {"name": format!("{service}-ipv4"), "namespace": NAMESPACE,
            "labels": {"kubernetes.io/service-name": service}},
        "endpoints": [{"addresses": [endpoint], "nodeName": NODE_NAME, "conditions": {"ready": true}}],
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}]})
}
