//! What the tables and the agent take of a node's memory: as much as its Services need, not as a large cluster would.

use std::fs;

use sidestep_tests::{
    bpftool, cluster,
    cluster::{Cluster, service},
};

/// Bytes that the kernel accounts for the pinned tables.
fn tables(cluster: &Cluster) -> u64 {
    let pins = bpftool::pinned_ids(cluster.lab.pin_directory()).expect("ids");
    let maps = pins.iter().filter(|(pin, _)| !pin.contains("/links/"));
    let bytes = maps.map(|(pin, id)| {
        let shown = bpftool::json(&["map", "show", "id", &id.to_string()]).expect("a map");
        let bytes = shown["bytes_memlock"].as_u64().expect("bytes");
        println!("{:8} {}", bytes >> 10, pin.rsplit('/').next().unwrap_or(pin));
        bytes
    });
    bytes.sum()
}

/// A field of `/proc/<pid>/status`, in bytes.
fn field(pid: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kibibytes: u64 = line.expect("the field").trim().trim_end_matches(" kB").parse().expect("a number");
    kibibytes << 10
}

/// Of fifty Services that can be reached from outside, the tables take less than eight mebibytes, and with a release build of the agent
/// (`cargo xtask test --release`) twelve; `ps` shows less than twenty-one for it, and twenty for the static build that is shipped.
#[test]
fn fifty_services_take_little() {
    let cluster = cluster!(2);
    for number in 1..=50 {
        let name = format!("web-{number}");
        let service = service(&name, &[&format!("10.96.1.{number}")]).node_port(30_000 + number);
        cluster.serve(&name, &service).expect("manifests");
    }
    let agent = cluster.lab.agent().expect("an agent");
    let own = agent.settled_memory().expect("running") << 10;
    let tables = tables(&cluster);
    let resident = field(agent.pid().expect("running"), "VmRSS");
    println!(
        "tables {} KiB, agent {} KiB of its own, {} KiB resident",
        tables >> 10,
        own >> 10,
        resident >> 10
    );
    assert!(tables <= 8 << 20, "{tables} bytes");
    let binary = std::env::var(sidestep_tests::agent::BINARY).unwrap_or_default();
    if binary.contains("/release/") {
        assert!(tables + own <= 12 << 20, "{tables} and {own} bytes");
        assert!(resident <= 21 << 20, "{resident} bytes");
    }
}
