//! The agent reaches the API server whatever its own tables say about the address, while other processes are translated
//! or refused by these tables (CF-1).

use std::net::SocketAddr;

use serde_json::Value;
use sidestep_tests::{
    Agent, Lab,
    api_server::{ApiServer, Kind, Objects},
    cluster::at,
    eventually, lab,
    manifest::{EndpointSlice, NAMESPACE, Node, Protocol, Service},
    topology::OTHER_V4,
    traffic::{TcpServer, ask, connect, is_refused},
};

const PORT: u16 = 6443;

fn object(manifest: &impl std::fmt::Display) -> Value {
    serde_saphyr::from_str(&manifest.to_string()).expect("YAML")
}

fn service(name: &str, cluster_ip: &str, port: u16) -> Value {
    object(&Service::new(name, &[cluster_ip]).port("api", Protocol::Tcp, port))
}

fn endpoints(service: &str, addresses: &[std::net::Ipv4Addr], port: u16) -> Value {
    let slice = EndpointSlice::new(service).port("api", Protocol::Tcp, port);
    object(&addresses.iter().fold(slice, |slice, address| slice.ready(*address)))
}

/// An API server on the other node, with the lab's Node.
fn api_server(lab: &Lab, address: SocketAddr) -> ApiServer {
    let objects = Objects::default();
    objects.put(object(&Node::lab()));
    ApiServer::start_at(lab.other_node().namespace(), address, objects).expect("an API server")
}

/// Whether another process of the node is refused at `address`.
fn others_are_refused(lab: &Lab, address: SocketAddr) -> bool {
    lab.node().run(|| is_refused(&connect(address)))
}

/// Waits until the agent has installed a new Service, which refuses connections: it still receives changes.
fn hears_of_changes(lab: &Lab, server: &ApiServer, number: u8) {
    let address = format!("10.96.9.{number}");
    server.put(service(&format!("news-{number}"), &address, 80));
    eventually("the new Service is installed", || others_are_refused(lab, at(&format!("{address}:80"))));
}

#[test]
fn tables_that_are_wrong_about_the_api_server_do_not_cut_the_agent_off() {
    let lab = lab!();
    let address = SocketAddr::from((OTHER_V4, PORT));
    let mut server = api_server(&lab, address);
    server.put(service("api", &OTHER_V4.to_string(), PORT));
    let mut agent = Agent::following(&lab, &server).inside().started(&lab).expect("an agent");
    eventually("other processes are refused", || others_are_refused(&lab, address));
    hears_of_changes(&lab, &server, 1);

    server.away();
    server.back(lab.other_node().namespace()).expect("the API server is back");
    hears_of_changes(&lab, &server, 2);

    agent.kill().expect("the agent is killed");
    agent.restart(&lab).expect("the agent is back");
    hears_of_changes(&lab, &server, 3);

    // The tables lead to a server that does not speak HTTP.
    let pod = lab.pod("stranger").expect("a pod");
    let stranger = TcpServer::start(&pod, "stranger", 80).expect("a server");
    server.put(endpoints("api", &[pod.v4], 80));
    eventually("other processes reach the stranger", || {
        lab.node().run(|| ask(address)).is_ok_and(|answer| answer.server == "stranger")
    });
    server.away();
    server.back(lab.other_node().namespace()).expect("the API server is back");
    let before = stranger.connections();
    hears_of_changes(&lab, &server, 4);
    assert_eq!(stranger.connections(), before, "the agent connected to the stranger");
    server.delete(Kind::Service, NAMESPACE, "api");
    eventually("other processes reach the API server again", || lab.node().run(|| connect(address)).is_ok());
    agent.stop().expect("it ends");
}

/// The service account's address needs a service proxy: here our own tables, which lead to the API server.
#[test]
fn the_service_accounts_address_is_reached_through_the_tables() {
    let lab = lab!();
    let address = SocketAddr::from((OTHER_V4, PORT));
    let server = api_server(&lab, address);
    server.put(service("kubernetes", "10.96.0.1", 443));
    server.put(endpoints("kubernetes", &[OTHER_V4], PORT));
    let mut first = Agent::following(&lab, &server);
    first.restart(&lab).expect("the first agent connects to the address itself");
    first.stop().expect("it ends");

    let mut agent = Agent::at(&lab, "http://10.96.0.1:443").inside();
    agent = agent.variable("KUBERNETES_SERVICE_HOST", "10.96.0.1");
    agent.restart(&lab).expect("the second agent connects through the tables");
    hears_of_changes(&lab, &server, 1);
    agent.stop().expect("it ends");
}

/// Where our tables do not lead there, another service proxy may; a route stands for it here.
#[test]
fn the_service_accounts_address_is_reached_where_the_tables_do_not_lead_there() {
    let lab = lab!();
    lab.other_node().namespace().ip_batch("addr add 10.96.0.1/32 dev lo").expect("an address");
    lab.node().namespace().ip_batch(&format!("route add 10.96.0.1 via {OTHER_V4}")).expect("a route");
    let address = at("10.96.0.1:443");
    let mut server = api_server(&lab, address);
    server.put(service("api", "10.96.0.1", 443));
    let mut agent = Agent::at(&lab, "http://10.96.0.1:443").inside();
    agent = agent.variable("KUBERNETES_SERVICE_HOST", "10.96.0.1");
    agent.restart(&lab).expect("an agent");
    eventually("other processes are refused", || others_are_refused(&lab, address));
    hears_of_changes(&lab, &server, 1);

    server.away();
    server.back(lab.other_node().namespace()).expect("the API server is back");
    hears_of_changes(&lab, &server, 2);

    // An endpoint without a server.
    let pod = lab.pod("silent").expect("a pod");
    server.put(endpoints("api", &[pod.v4], 443));
    server.away();
    server.back(lab.other_node().namespace()).expect("the API server is back");
    hears_of_changes(&lab, &server, 3);
    agent.stop().expect("it ends");
}
