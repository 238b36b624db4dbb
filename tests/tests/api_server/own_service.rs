//! The agent never installs `default/kubernetes` without endpoints: not when its slice is emptied or deleted, and not
//! after a restart in between.

use std::fmt::Display;

use serde_json::Value;
use sidestep_tests::{
    Agent,
    api_server::{ApiServer, Kind, Objects},
    cluster,
    cluster::{at, service, slice},
    eventually,
    manifest::{NAMESPACE, Node},
    traffic::{ask, connect, is_refused},
};

const KUBERNETES: &str = "10.96.0.1:80";
const OTHER: &str = "10.96.0.20:80";

fn object(manifest: &impl Display) -> Value {
    serde_saphyr::from_str(&manifest.to_string()).expect("YAML")
}

#[test]
fn the_api_servers_service_keeps_its_endpoints_when_none_is_left() {
    let cluster = cluster!(2);
    let objects = Objects::default();
    objects.put(object(&Node::lab()));
    for (name, address) in [("kubernetes", "10.96.0.1"), ("other", "10.96.0.20")] {
        objects.put(object(&service(name, &[address])));
        objects.put(object(&cluster.slice_v4(name, [0])));
    }
    let server = ApiServer::start(cluster.lab.node().namespace(), objects).expect("an API server");
    let mut agent = Agent::follow(&cluster.lab, &server).expect("an agent");
    let who = || cluster.client.run(|| ask(at(KUBERNETES)).map(|answer| answer.server)).expect("an answer");
    let other_is_refused = || cluster.client.run(|| is_refused(&connect(at(OTHER))));
    assert_eq!(who(), "pod-0");

    for name in ["kubernetes", "other"] {
        server.put(object(&slice(name)));
    }
    eventually("connections to another Service are refused", other_is_refused);
    assert_eq!(who(), "pod-0");
    agent.kill().expect("kill -9");
    agent.restart(&cluster.lab).expect("a new agent");
    assert!(other_is_refused());
    assert_eq!(who(), "pod-0", "after a restart");
    for name in ["kubernetes", "other"] {
        server.delete(Kind::EndpointSlice, NAMESPACE, &format!("{name}-ipv4"));
    }
    server.put(object(&cluster.slice_v4("other", [1])));
    eventually("the agent sees the deletions", || !other_is_refused());
    assert_eq!(who(), "pod-0");
    agent.kill().expect("kill -9");
    agent.restart(&cluster.lab).expect("a new agent");
    assert_eq!(who(), "pod-0", "after a restart");

    server.put(object(&cluster.slice_v4("kubernetes", [1])));
    eventually("a new endpoint takes over", || who() == "pod-1");
}
