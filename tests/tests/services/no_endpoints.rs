//! Services without endpoints refuse at once.

use std::{
    io,
    time::{Duration, Instant},
};

use proxy_agent::dataplane::has_set_retval;
use sidestep_tests::{
    cluster,
    cluster::{at, service},
    eventually,
    pace::within,
    traffic::{Asker, ask, connect, is_refused},
};

/// Whether it is refused as the kernel lets a program refuse: before 5.18 a datagram with EPERM alone.
fn is_refused_here<T>(result: &io::Result<T>) -> bool {
    let is_forbidden = matches!(result, Err(error) if error.kind() == io::ErrorKind::PermissionDenied);
    is_refused(result) || is_forbidden && !has_set_retval()
}

/// Asserts a refusal that is faster than any packet.
fn refused_at_once<T: std::fmt::Debug>(what: &str, call: impl FnOnce() -> io::Result<T>) {
    let start = Instant::now();
    let result = call();
    assert!(is_refused_here(&result), "{what}: {result:?}");
    assert!(start.elapsed() < within(Duration::from_millis(500)), "{what}: {:?}", start.elapsed());
}

fn every_request_is_refused(port_tcp: u16, port_udp: u16) {
    for ip in ["10.96.0.9", "[fd00:10:96::9]", "[::ffff:10.96.0.9]"] {
        let (tcp, udp) = (at(&format!("{ip}:{port_tcp}")), at(&format!("{ip}:{port_udp}")));
        refused_at_once("TCP connect", || connect(tcp));
        // No request yet.
        Asker::for_address(udp).and_then(|asker| asker.connect(udp)).expect("UDP connect");
        refused_at_once("UDP sendto", || Asker::for_address(udp)?.ask(udp));
    }
}

/// PO-1: no endpoint in any slice.
#[test]
fn a_service_without_endpoints_refuses_at_once() {
    let cluster = cluster!(0);
    let empty = service("empty", &["10.96.0.9", "fd00:10:96::9"]);
    cluster.lab.manifests().write("empty.yaml", &[&empty]).expect("manifests");
    cluster.route_services_out().expect("routes");
    let _agent = cluster.lab.agent().expect("an agent");
    cluster.client.run(|| every_request_is_refused(80, 53));
}

/// PO-13: a ClusterIP belongs to its Service alone, so an unknown port is refused.
#[test]
fn an_unknown_port_of_a_cluster_ip_refuses_at_once() {
    let cluster = cluster!(1);
    cluster.serve("web", &service("web", &["10.96.0.9", "fd00:10:96::9"])).expect("manifests");
    cluster.route_services_out().expect("routes");
    let _agent = cluster.lab.agent().expect("an agent");
    cluster.client.run(|| every_request_is_refused(81, 54));
    // TCP and UDP ports are separate.
    cluster.client.run(|| every_request_is_refused(53, 80));
}

/// ST-6: a socket that was refused without endpoints works once there is one.
#[test]
fn a_socket_that_was_refused_works_once_there_are_endpoints() {
    let cluster = cluster!(1);
    let service = service("dns", &["10.96.0.9"]);
    cluster.lab.manifests().write("dns.yaml", &[&service]).expect("manifests");
    cluster.route_services_out().expect("routes");
    let _agent = cluster.lab.agent().expect("an agent");
    let vip = at("10.96.0.9:53");
    cluster.client.run(|| {
        let asker = Asker::v4().expect("a socket");
        refused_at_once("UDP sendto", || asker.ask(vip));
        cluster.endpoints("dns", &cluster.slice_v4("dns", 0..1)).expect("manifests");
        eventually("the same socket gets an answer", || {
            asker.ask(vip).is_ok_and(|(_, source)| source == vip)
        });
        ask(at("10.96.0.9:80")).expect("TCP gets an answer, too");
        cluster.lab.manifests().remove("dns-endpoints.yaml").expect("removal");
        eventually("the socket is refused again", || is_refused(&asker.ask(vip)));
    });
}
