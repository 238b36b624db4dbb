//! Addresses that look like a Service's and are somebody else's.

use sidestep_tests::{
    cluster,
    cluster::{at, service},
    eventually,
    topology::{GATEWAY_V4, OTHER_V4},
    traffic::{Asker, TcpServer, UdpServer, ask},
};

/// PO-18: a ClusterIP that the node has on an interface, as a cache of DNS does, belongs to who listens there;
/// `status` says so; and it is the Service's again when the interface gives it back.
#[test]
fn a_cluster_ip_on_an_interface_of_the_node_is_left_alone() {
    let cluster = cluster!(1);
    cluster.serve("dns", &service("dns", &["10.96.0.53"])).expect("manifests");
    let agent = cluster.lab.agent().expect("an agent");
    let (node, vip) = (cluster.lab.node(), at("10.96.0.53:53"));
    let who = || cluster.client.run(|| Asker::v4()?.ask(vip).map(|(answer, _)| answer.server));
    assert_eq!(who().expect("an answer"), "pod-0");

    node.namespace().ip_batch("addr add 10.96.0.53/32 dev pods\n").expect("an address");
    cluster
        .client
        .namespace()
        .ip_batch(&format!("route add 10.96.0.53/32 via {GATEWAY_V4}\n"))
        .expect("a route");
    let cache = UdpServer::start_at(node, "cache", vip).expect("a server");
    eventually("the cache answers", || who().is_ok_and(|server| server == "cache"));
    // It is written when the tables are.
    eventually("the report names it", || {
        agent.report().is_ok_and(|report| report.names("dns", "10.96.0.53"))
    });
    let output = cluster.lab.sidestep(&["status"]).expect("status runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("10.96.0.53 is an address of this node"), "{text}");

    drop(cache);
    node.namespace().ip_batch("addr del 10.96.0.53/32 dev pods\n").expect("the address goes");
    eventually("the Service answers again", || who().is_ok_and(|server| server == "pod-0"));
}

/// PO-14: an address of the range of ClusterIPs that no Service has is not ours to drop or refuse: it goes where
/// the routes say.
#[test]
fn an_address_that_no_service_has_is_left_to_the_routes() {
    let cluster = cluster!(1);
    cluster.serve("web", &service("web", &["10.96.0.10"])).expect("manifests");
    let (other, free) = (cluster.lab.other_node(), at("10.96.0.77:80"));
    other.namespace().ip_batch("addr add 10.96.0.77/32 dev uplink\n").expect("an address");
    cluster
        .lab
        .node()
        .namespace()
        .ip_batch(&format!("route add 10.96.0.77/32 via {OTHER_V4}\n"))
        .expect("a route");
    cluster
        .client
        .namespace()
        .ip_batch(&format!("route add 10.96.0.77/32 via {GATEWAY_V4}\n"))
        .expect("a route");
    let _server = TcpServer::start(other, "somebody", 80).expect("a server");
    let _agent = cluster.lab.agent().expect("an agent");
    assert_eq!(cluster.client.run(|| ask(free)).expect("an answer").server, "somebody");
    assert_eq!(cluster.client.run(|| ask(at("10.96.0.10:80"))).expect("an answer").server, "pod-0");
}
