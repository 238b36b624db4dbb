//! The agent rejects an invalid object by name, and serves all others.

use std::fmt::Write;

use sidestep_tests::{
    cluster,
    cluster::{HTTP, at, service},
    eventually,
    manifest::{Protocol, Service},
    traffic::ask,
};

const UNKNOWN_KIND: &str = "apiVersion: v1\nkind: Pony\nmetadata: {name: rainbow, namespace: default}\n";

const BAD_ADDRESS: &str = "apiVersion: v1
kind: Service
metadata: {name: nonsense-address, namespace: default}
spec: {clusterIP: 10.96.0.300, clusterIPs: [10.96.0.300], ipFamilies: [IPv4], ports: [{port: 80, protocol: TCP}]}
";

const PORT_ZERO: &str = "apiVersion: v1
kind: Service
metadata: {name: port-zero, namespace: default}
spec: {clusterIP: 10.96.0.31, clusterIPs: [10.96.0.31], ipFamilies: [IPv4], ports: [{port: 0, protocol: TCP}]}
";

const TRUNCATED: &str = "apiVersion: v1
kind: Service
metadata: {name: truncated, namespace: default}
spec: {clusterIP: 10.96.0.32, ports: [{port: 80,
";

/// The report names each invalid object and its fault, and all other Services work.
#[test]
fn bad_objects_are_named_and_the_rest_is_installed() {
    let cluster = cluster!(1);
    let manifests = cluster.lab.manifests();
    manifests.write_text("unknown-kind.yaml", UNKNOWN_KIND).expect("manifests");
    manifests.write_text("bad-address.yaml", BAD_ADDRESS).expect("manifests");
    manifests.write_text("port-zero.yaml", PORT_ZERO).expect("manifests");
    manifests.write_text("truncated.yaml", TRUNCATED).expect("manifests");
    let twin = |name| Service::new(name, &["10.96.0.33"]).port(HTTP, Protocol::Tcp, 80);
    manifests.write("twins.yaml", &[&twin("twin-a"), &twin("twin-b")]).expect("manifests");
    manifests.write("huge.yaml", &[&service("huge", &["10.96.0.34"])]).expect("manifests");
    manifests.write_text("huge-slice.yaml", &huge_slice()).expect("manifests");
    cluster.serve("web", &service("web", &["10.96.0.10"])).expect("manifests");
    let agent = cluster.lab.agent().expect("an agent");

    let report = agent.report().expect("a report");
    for (object, detail) in [
        ("unknown-kind.yaml", "Pony"),
        ("nonsense-address", "10.96.0.300"),
        ("port-zero", "port"),
        ("truncated.yaml", ""),
        ("twin-", "10.96.0.33"),
        ("huge", "5000"),
    ] {
        assert!(report.names(object, detail), "{object}: {detail}\n{:#?}", report.problems);
    }
    cluster.client.run(|| ask(at("10.96.0.10:80"))).expect("the good Service works");

    // `status` shows the problems, too.
    let output = cluster.lab.sidestep(&["status"]).expect("status runs");
    let text = String::from_utf8_lossy(&output.stdout);
    for name in ["Pony", "nonsense-address", "port-zero", "truncated", "twin-", "huge"] {
        assert!(text.contains(name), "{name} is not in\n{text}{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// The agent installs a file once it is corrected, and clears its problem.
#[test]
fn a_corrected_manifest_is_installed() {
    let cluster = cluster!(1);
    cluster.lab.manifests().write_text("truncated.yaml", TRUNCATED).expect("manifests");
    let agent = cluster.lab.agent().expect("an agent");
    assert_eq!(agent.report().expect("a report").problems.len(), 1);
    cluster.serve("truncated", &service("truncated", &["10.96.0.32"])).expect("manifests");
    eventually("the corrected Service works", || cluster.client.run(|| ask(at("10.96.0.32:80"))).is_ok());
    eventually("its problem is cleared", || agent.report().is_ok_and(|report| report.problems.is_empty()));
}

/// A file that becomes invalid while the agent runs: its last valid content stays in force, and the report names the
/// problem.
#[test]
fn an_invalid_manifest_keeps_its_last_valid_content() {
    let cluster = cluster!(1);
    cluster.serve("web", &service("web", &["10.96.0.10"])).expect("manifests");
    let agent = cluster.lab.agent().expect("an agent");
    cluster.lab.manifests().write_text("web.yaml", TRUNCATED).expect("manifests");
    eventually("the report names the problem", || {
        agent.report().is_ok_and(|report| report.names("web.yaml", ""))
    });
    cluster.client.run(|| ask(at("10.96.0.10:80"))).expect("an answer");
}

/// A slice with five times the allowed number of endpoints.
fn huge_slice() -> String {
    let mut text = "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: huge-slice, namespace: default, labels: {kubernetes.io/service-name: huge}}
addressType: IPv4
ports: [{name: http, port: 8080, protocol: TCP}]
endpoints:
"
    .to_owned();
    for number in 0..5000 {
        writeln!(text, "- addresses: [10.250.{}.{}]", number / 250, number % 250 + 1).expect("a string");
    }
    text
}
