//! A faulty API server: an endpoint that exists throughout stays reachable throughout, and each change soon takes
//! effect.

use std::{fmt::Display, time::Duration};

use serde_json::Value;
use sidestep_tests::{
    Agent,
    api_server::{ApiServer, Fault, Objects, Of, Slip},
    cluster,
    cluster::{at, service},
    eventually::wait_for,
    manifest::Node,
    pressure::Pressure,
    traffic::ask,
};

const WEB: &str = "10.96.0.10:80";
const UDP: &str = "10.96.0.10:53";
/// The agent's back-off after a few failures in a row, with a margin for a busy machine.
const RECOVERY: Duration = Duration::from_secs(45);

fn object(manifest: &impl Display) -> Value {
    serde_saphyr::from_str(&manifest.to_string()).expect("YAML")
}

#[test]
fn connections_survive_api_server_faults_and_changes_arrive() {
    let cluster = cluster!(3);
    let objects = Objects::default();
    objects.put(object(&Node::lab()));
    objects.put(object(&service("web", &["10.96.0.10"])));
    objects.put(object(&cluster.slice_v4("web", [0])));
    let server = ApiServer::start(cluster.lab.node().namespace(), objects).expect("an API server");
    let agent = Agent::follow(&cluster.lab, &server).expect("an agent");
    let pressure = Pressure::start(&cluster.client, at(WEB), at(UDP));

    let who = || cluster.client.run(|| ask(at(WEB)).map(|answer| answer.server)).expect("an answer");
    let wrongs: [(&str, &dyn Fn()); 6] = [
        ("a line is cut off with its connection", &|| server.slip(Slip::Cut, 1)),
        ("half a line, and the watch goes on", &|| server.slip(Slip::Halve, 1)),
        ("410 in the middle of a watch", &|| server.slip(Slip::Gone, 1)),
        ("an old line comes again", &|| server.slip(Slip::Again, 1)),
        ("410 when a watch starts", &|| {
            server.fault(Of::Watches, Fault::Status(410), 3);
            server.cut();
        }),
        ("the history is forgotten, and lists are cut off", &|| {
            server.compact();
            server.fault(Of::Lists, Fault::Cut, 1);
            server.slip(Slip::Gone, 1);
        }),
    ];
    for (number, (wrong, goes)) in (0_usize..).zip(wrongs) {
        if number == 3 {
            // The agent's back-off grows with each failure, and resets after a while without one.
            let is_well = || agent.report().is_ok_and(|report| report.problems.is_empty());
            wait_for(RECOVERY, "the agent reports no problem", is_well).expect("the watches recover");
        }
        goes();
        // pod-0 stays; of the other two, one is added and one removed.
        let (comes, stays_away) = (1 + number % 2, 2 - number % 2);
        server.put(object(&cluster.slice_v4("web", [0, comes])));
        let comes = format!("pod-{comes}");
        wait_for(RECOVERY, wrong, || who() == comes).expect("the change arrives");
        let stays_away = format!("pod-{stays_away}");
        assert!((0..20).all(|_| who() != stays_away), "{wrong}: {stays_away} still gets connections");
    }
    pressure.stop().assert_flawless();
}
