//! IN-7: while the API server is unavailable, even across a restart of the agent, no connection breaks and no Service
//! disappears; when it is back, the agent catches up.

use std::{fmt::Display, time::Duration};

use serde_json::Value;
use sidestep_tests::{
    Agent, Lab,
    api_server::{ApiServer, Kind, Objects},
    cluster,
    cluster::{at, service},
    eventually::wait_for,
    manifest::{NAMESPACE, Node},
    pressure::Pressure,
    traffic::{Conversation, ask},
};

const WEB: &str = "10.96.0.10:80";
const UDP: &str = "10.96.0.10:53";
/// The agent's longest back-off, with a margin for a busy machine.
const BACK_OFF: Duration = Duration::from_secs(45);

fn object(manifest: &impl Display) -> Value {
    serde_saphyr::from_str(&manifest.to_string()).expect("YAML")
}

fn is_installed(lab: &Lab, service: &str) -> bool {
    let status = lab.sidestep(&["status", service]).expect("status runs");
    String::from_utf8_lossy(&status.stdout).contains(&format!("{NAMESPACE}/{service}"))
}

#[test]
fn an_unavailable_api_server_breaks_no_connection_and_the_agent_catches_up() {
    let cluster = cluster!(3);
    let namespace = cluster.lab.node().namespace();
    let objects = Objects::default();
    objects.put(object(&Node::lab()));
    for (name, address) in [("web", "10.96.0.10"), ("old", "10.96.0.11")] {
        objects.put(object(&service(name, &[address])));
        objects.put(object(&cluster.slice_v4(name, [0, 1])));
    }
    let mut server = ApiServer::start(namespace, objects).expect("an API server");
    let mut agent = Agent::follow(&cluster.lab, &server).expect("an agent");
    let pressure = Pressure::start(&cluster.client, at(WEB), at(UDP));
    let mut conversation = cluster.client.run(|| Conversation::with(at(WEB))).expect("a connection");
    let first = conversation.ask().expect("an answer");
    pressure.let_pass(50);

    server.away();
    pressure.let_pass(100);
    agent.kill().expect("kill -9");
    pressure.let_pass(100);
    agent.launch(&cluster.lab).expect("a new agent");
    wait_for(BACK_OFF, "the agent reports that its watch fails", || {
        agent
            .report()
            .is_ok_and(|report| Some(report.pid) == agent.pid() && report.names("watch of Services", ""))
    })
    .expect("a report");
    assert!(!agent.report().expect("a report").synced, "the new agent is synced without an API server");
    assert!(is_installed(&cluster.lab, "old"), "the new agent removed the Service");
    pressure.let_pass(100);

    // These changes are no longer in the history when the server is back.
    server.delete(Kind::Service, NAMESPACE, "old");
    server.put(object(&cluster.slice_v4("web", [0, 2])));
    server.put(object(&service("new", &["10.96.0.12"])));
    server.put(object(&cluster.slice_v4("new", [1])));
    server.compact();
    server.back(namespace).expect("the API server is back");
    agent.wait_until_synced(BACK_OFF).expect("it catches up");
    assert!(!is_installed(&cluster.lab, "old"));
    let who = |vip: &'static str| cluster.client.run(move || ask(at(vip)).map(|answer| answer.server));
    assert_eq!(who("10.96.0.12:80").expect("an answer"), "pod-1");
    let servers: Vec<String> = (0..60).map(|_| who(WEB).expect("an answer")).collect();
    assert!(servers.iter().all(|server| server == "pod-0" || server == "pod-2"), "{servers:?}");
    assert!(servers.iter().any(|server| server == "pod-2"), "{servers:?}");

    assert_eq!(conversation.ask().expect("an answer"), first, "the old connection changed its endpoint");
    pressure.stop().assert_flawless();
}
