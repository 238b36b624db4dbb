//! After a burst the agent gives memory back: a Service with thousands of ports comes and goes, and so do thousands of
//! Services.

use std::fs;

use sidestep_tests::{
    Agent, cluster,
    cluster::{Cluster, service},
    eventually,
    manifest::{EndpointSlice, Protocol, Service},
};

/// Ports of the one Service, and how many Services come at once.
const PORTS: u16 = 3000;
const SERVICES: u16 = 2000;
/// What may stay, in kB: a heap has holes.
const SPARE: u64 = 3 << 10;

/// The agent's own memory, in kB.
fn memory(agent: &Agent) -> u64 {
    let status =
        fs::read_to_string(format!("/proc/{}/status", agent.pid().expect("it runs"))).expect("its status");
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("RssAnon");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}

fn installed(cluster: &Cluster) -> usize {
    let tables = proxy_agent::dataplane::Tables::open(cluster.lab.pin_directory()).expect("the tables");
    tables.names.keys().count()
}

/// One Service with many ports, and an endpoint behind each.
fn wide() -> (Service, EndpointSlice) {
    let name = |port: u16| format!("p{port}");
    let wide = (1..=PORTS).fold(Service::new("wide", &["10.96.1.1"]), |service, port| {
        service.port(&name(port), Protocol::Tcp, port)
    });
    let slice = (1..=PORTS)
        .fold(EndpointSlice::new("wide"), |slice, port| slice.port(&name(port), Protocol::Tcp, port));
    (wide, slice.ready(std::net::Ipv4Addr::new(10, 250, 0, 1)))
}

#[test]
fn memory_goes_back_after_a_burst() {
    let cluster = cluster!(1);
    let manifests = cluster.lab.manifests();
    cluster.serve("web", &service("web", &["10.96.0.10"])).expect("manifests");
    let agent = cluster.lab.agent().expect("an agent");
    let (few, before) = (installed(&cluster), memory(&agent));
    for round in 0..2 {
        let (service, slice) = wide();
        manifests.write("wide.yaml", &[&service, &slice]).expect("manifests");
        eventually("it is installed", || installed(&cluster) == few + usize::from(PORTS));
        let most = memory(&agent);
        manifests.remove("wide.yaml").expect("removal");
        eventually("it is gone", || installed(&cluster) == few);
        let mut after = 0;
        eventually("memory goes back", || {
            after = memory(&agent);
            after < before + SPARE
        });
        println!("round {round}, ports: {before} kB before, {most} with, {after} after");
    }

    let many: Vec<Service> = (0..SERVICES)
        .map(|number| {
            let [high, low] = number.to_be_bytes();
            service(&format!("many-{number}"), &[&format!("10.97.{high}.{low}")])
        })
        .collect();
    let objects: Vec<&dyn std::fmt::Display> = many.iter().map(|service| service as _).collect();
    manifests.write("many.yaml", &objects).expect("manifests");
    eventually("they are installed", || installed(&cluster) == few + 2 * usize::from(SERVICES));
    let most = memory(&agent);
    manifests.remove("many.yaml").expect("removal");
    eventually("they are gone", || installed(&cluster) == few);
    eventually("memory goes back", || memory(&agent) < before + SPARE);
    println!("Services: {before} kB before, {most} with, {} after", memory(&agent));
}
