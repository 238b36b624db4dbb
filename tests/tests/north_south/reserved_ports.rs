//! The agent reserves the ports of masqueraded packets and NodePorts in use beside others' reservations, across
//! restarts and from within a container, and releases exactly those.

use std::fs;

use serde_json::Value;
use sidestep_tests::{
    Agent, Lab, cluster,
    cluster::{at, service},
    devices::reserved_ports as reserved,
    eventually, lab,
    manifest::{Protocol, Service},
    traffic::ask,
};

const FILE: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

fn reserve(lab: &Lab, ports: &str) {
    lab.node().run(|| fs::write(FILE, ports)).expect("the sysctl");
}

fn agent(lab: &Lab, ports: &str) -> Agent {
    Agent::reading(lab).arguments(["--source-port-range", ports]).started(lab).expect("an agent")
}

fn cleanup(lab: &Lab) {
    let output = lab.sidestep(&["cleanup"]).expect("cleanup runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// ST-7: ports that others reserved, before or meanwhile, stay reserved, whatever the agent adds and removes.
#[test]
fn what_others_reserved_stays_reserved() {
    let lab = lab!();
    reserve(&lab, "8080,50005,50100");
    let mut first = agent(&lab, "50000-50009");
    assert_eq!(reserved(&lab), "8080,50000-50009,50100");
    // A crash, then an agent with another range.
    first.kill().expect("killed");
    let mut second = agent(&lab, "50008-50011");
    assert_eq!(reserved(&lab), "8080,50005,50008-50011,50100");
    reserve(&lab, "8080,50005,50008-50011,50100,9000");
    second.stop().expect("it stops");
    assert_eq!(reserved(&lab), "8080,9000,50005,50008-50011,50100", "without an agent");
    cleanup(&lab);
    assert_eq!(reserved(&lab), "8080,9000,50005,50100");
    cleanup(&lab);
    assert_eq!(reserved(&lab), "8080,9000,50005,50100", "after a second cleanup");
}

/// ST-7: a range that would leave too few ports for the node's own connections is reported and not reserved.
#[test]
fn the_nodes_own_connections_keep_their_ports() {
    let lab = lab!();
    lab.node()
        .run(|| fs::write("/proc/sys/net/ipv4/ip_local_port_range", "49152 65535"))
        .expect("the sysctl");
    let agent = agent(&lab, "49152-65000");
    assert_eq!(reserved(&lab), "");
    let report = agent.report().expect("a report");
    assert!(report.names("source ports 49152-65000", "keep only 535 ports"), "{report:?}");
}

/// A Service with these NodePorts.
fn with_node_ports(numbers: &[(u16, Protocol)]) -> Service {
    let ports = (8000..).zip(numbers);
    ports.fold(Service::new("web", &["10.96.0.10"]), |service, (port, (number, protocol))| {
        service.port(&format!("p{number}"), *protocol, port).node_port(*number)
    })
}

/// ST-7: NodePorts are reserved while a Service has them, beside others' reservations, across restarts.
#[test]
fn node_ports_are_reserved_as_long_as_they_are_in_use() {
    use Protocol::{Tcp, Udp};
    let lab = lab!();
    reserve(&lab, "30053");
    let serve = |ports: &[(u16, Protocol)]| {
        lab.manifests().write("web.yaml", &[&with_node_ports(ports)]).expect("a manifest");
    };
    serve(&[(30080, Tcp), (30053, Udp)]);
    let mut first = agent(&lab, "50000-50009");
    assert_eq!(reserved(&lab), "30053,30080,50000-50009");
    serve(&[(30080, Tcp), (30053, Udp), (30081, Tcp), (31000, Udp)]);
    eventually("new NodePorts are reserved", || reserved(&lab) == "30053,30080-30081,31000,50000-50009");
    serve(&[(30081, Tcp)]);
    eventually("unused NodePorts are released", || reserved(&lab) == "30053,30081,50000-50009");
    // NodePorts disappear while no agent runs.
    first.kill().expect("killed");
    serve(&[(30082, Tcp)]);
    assert_eq!(reserved(&lab), "30053,30081,50000-50009", "without an agent");
    let mut second = agent(&lab, "50000-50009");
    assert_eq!(reserved(&lab), "30053,30082,50000-50009");
    second.stop().expect("it stops");
    cleanup(&lab);
    assert_eq!(reserved(&lab), "30053");
}

/// ST-7: NodePorts that would leave too few ports for the node's own connections are reported and not reserved; the
/// range is reserved.
#[test]
fn the_nodes_own_connections_keep_their_ports_from_node_ports() {
    let lab = lab!();
    lab.node()
        .run(|| fs::write("/proc/sys/net/ipv4/ip_local_port_range", "30080 31103"))
        .expect("the sysctl");
    let service = with_node_ports(&[(30080, Protocol::Tcp)]);
    lab.manifests().write("web.yaml", &[&service]).expect("a manifest");
    let agent = agent(&lab, "50000-50009");
    assert_eq!(reserved(&lab), "50000-50009");
    let report = agent.report().expect("a report");
    assert!(report.names("NodePorts 30080", "keep only 1023 ports"), "{report:?}");
}

/// ST-7: the command line rejects an invalid range with the reason.
#[test]
fn an_invalid_range_is_refused() {
    let lab = lab!();
    for (range, part) in [("1000-2000", "below 1024"), ("5000-4000", "is empty"), ("x", "49152-65535")] {
        let run = ["run", "--manifests", "/nowhere", "--source-port-range", range];
        let output = lab.sidestep(&run).expect("it runs");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains(part), "{text}");
    }
}

/// An agent as a container runtime starts it, with a read-only `/proc/sys`; the shell commands `mounts` run before.
fn contained(lab: &Lab, mounts: &str) -> Agent {
    // The mounts need CAP_SYS_ADMIN and other capabilities that the DaemonSet does not have.
    let script = format!(
        "{mounts} mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys; \
         exec setpriv --bounding-set=-all,{} \"$0\" \"$@\"",
        daemon_sets_capabilities()
    );
    let wrapper = ["unshare", "--mount", "--propagation", "slave", "sh", "-ec", &script];
    Agent::reading(lab).arguments(["--source-port-range", "50000-50009"]).wrapped(wrapper)
}

fn daemon_sets_capabilities() -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/base/daemonset.yaml");
    let manifest: Value =
        serde_saphyr::from_str(&fs::read_to_string(path).expect("the manifest")).expect("YAML");
    let container = &manifest["spec"]["template"]["spec"]["containers"][0];
    let added = container["securityContext"]["capabilities"]["add"].as_array().expect("a list");
    let names: Vec<String> =
        added.iter().map(|name| format!("+{}", name.as_str().expect("a name").to_lowercase())).collect();
    names.join(",")
}

/// ST-7: in a container with a read-only `/proc/sys`, the agent writes the node's file that is mounted into the
/// container. Without that file it reports a problem and the remedy, and Services work nevertheless.
#[test]
fn in_a_container_the_nodes_file_is_used() {
    let cluster = cluster!(1);
    let lab = &cluster.lab;
    cluster.serve("web", &service("web", &["10.96.0.10"])).expect("manifests");
    let works = || drop(cluster.client.run(|| ask(at("10.96.0.10:80"))).expect("an answer"));

    let mut without = contained(lab, "").started(lab).expect("an agent");
    works();
    assert_eq!(reserved(lab), "");
    let report = without.report().expect("a report");
    assert!(report.names("source ports 50000-50009", FILE), "{report:?}");
    assert!(report.names("source ports 50000-50009", "into the container"), "{report:?}");
    without.stop().expect("it stops");

    let given = lab.run_directory().join("given");
    fs::write(&given, "").expect("a file to mount on");
    let mount = format!("mount --bind {FILE} {};", given.display());
    let mut with = contained(lab, &mount).started(lab).expect("an agent");
    works();
    assert_eq!(reserved(lab), "50000-50009");
    let report = with.report().expect("a report");
    assert!(!report.names("source ports", ""), "{report:?}");
    with.stop().expect("it stops");
    cleanup(lab);
    assert_eq!(reserved(lab), "");

    // Ports that an operator has reserved need no file.
    reserve(lab, "50000-50009");
    let by_operator = contained(lab, "").started(lab).expect("an agent");
    assert!(!by_operator.report().expect("a report").names("source ports", ""));
}
