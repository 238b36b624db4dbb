//! North-south flows: listed by `sidestep flows`, counted, and released when idle.

use std::{io::Write as _, net::SocketAddr, thread::sleep, time::Duration};

use serde_json::Value;
use sidestep_tests::{
    Agent, TwoNodes,
    cluster::{DNS, HTTP},
    eventually,
    eventually::wait_for,
    manifest::{NAMESPACE, Protocol, Service},
    traffic::{Asker, Conversation, connect},
    two_nodes,
    two_nodes::Variant,
};

/// The output of a `sidestep` command on the node.
fn answer(nodes: &TwoNodes, arguments: &[&str]) -> Value {
    let output = nodes.lab().sidestep(arguments).expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr)))
}

/// The one flow of this client.
fn flow(nodes: &TwoNodes, client: SocketAddr) -> Value {
    let flows = answer(nodes, &["flows", "--output", "json", &client.to_string()]);
    let [flow] = flows.as_array().expect("a list").as_slice() else { panic!("{flows}") };
    flow.clone()
}

/// How many flows are confirmed.
fn confirmed(nodes: &TwoNodes) -> u64 {
    let status = answer(nodes, &["status", "--output", "json"]);
    named(&status["capacity"], "table", "FLOWS", "used")
}

/// The response to a scrape on the node.
fn metrics(nodes: &TwoNodes) -> String {
    let ask = || {
        let mut stream = connect(SocketAddr::from(([127, 0, 0, 1], 10_249)))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")?;
        std::io::read_to_string(stream)
    };
    nodes.node().run(ask).expect("metrics")
}

/// The number in `field` of the element of `list` with this name.
fn named(list: &Value, key: &str, name: &str, field: &str) -> u64 {
    let found = list.as_array().expect("a list").iter().find(|one| one[key] == name);
    found.and_then(|found| found[field].as_u64()).unwrap_or_else(|| panic!("{name} in {list}"))
}

/// ST-4, CF-14: connections and UDP flows to a pod of the node, and masqueraded ones to a pod of another node. The
/// agent releases those that are idle for longer than the timeouts and keeps those in use; a released connection still
/// works until another one evicts its record.
#[test]
fn flows_are_listed_and_released_when_idle() {
    let nodes = two_nodes!(Variant::DIRECT);
    let (here, there) =
        (nodes.backend_here("here").expect("a pod"), nodes.backend_there("there").expect("a pod"));
    for (name, address, ports, backend) in
        [("near", "10.96.0.10", [30_080, 30_053], &here), ("far", "10.96.0.11", [30_081, 30_054], &there)]
    {
        let [http, dns] = ports;
        let service = Service::new(name, &[address]).port(HTTP, Protocol::Tcp, 80).node_port(http);
        let service = service.port(DNS, Protocol::Udp, 53).node_port(dns);
        nodes.publish(name, &service, &[backend]).expect("manifests");
    }
    let _agent = Agent::reading(nodes.lab())
        .arguments([
            "--conntrack-tcp-timeout-established=8s",
            "--conntrack-tcp-timeout-close-wait=2s",
            "--conntrack-udp-timeout-stream=5s",
            "--source-port-range=50000-50999",
        ])
        .started(nodes.lab())
        .expect("an agent");
    let at = |port: u16| nodes.at_node(port)[0];
    assert_eq!(confirmed(&nodes), 0);

    let ((mut near, near_client), (mut far, far_client), near_udp, far_udp) = nodes.outside().run(|| {
        let mut connections = [30_080, 30_081].map(|port| {
            let stream = connect(at(port)).expect("a connection");
            let local = stream.local_addr().expect("an address");
            (Conversation::over(stream).expect("a connection"), local)
        });
        let askers = [30_053, 30_054].map(|port| (Asker::v4().expect("a socket"), port));
        for _ in 0..2 {
            for (connection, _) in &mut connections {
                connection.ask().expect("an answer");
            }
            for (asker, port) in &askers {
                asker.ask(at(*port)).expect("an answer");
            }
        }
        let ([near, far], [near_udp, far_udp]) = (connections, askers);
        (near, far, near_udp, far_udp)
    });
    eventually("all flows are confirmed", || {
        for (asker, port) in [&near_udp, &far_udp] {
            asker.ask(at(*port)).expect("an answer");
        }
        sleep(Duration::from_millis(100));
        confirmed(&nodes) == 4
    });
    let metrics = metrics(&nodes);
    for line in [
        "sidestep_flows{state=\"confirmed\"} 4\n",
        "sidestep_table_entries{table=\"flows\"} 4\n",
        "sidestep_table_room{table=\"flows\"} 12544\n",
        "sidestep_refusals_total{reason=\"flow-table-full\"} 0\n",
    ] {
        assert!(metrics.contains(line), "no line {line}in\n{metrics}");
    }
    let client = |socket: SocketAddr| SocketAddr::new(nodes.outside().v4.into(), socket.port());
    let [near_asker, far_asker] =
        [&near_udp.0, &far_udp.0].map(|asker| client(asker.socket().local_addr().expect("an address")));
    for (from, protocol, name, frontend, endpoint) in [
        (near_client, "TCP", "near:http", 30_080, (&here, 8080)),
        (far_client, "TCP", "far:http", 30_081, (&there, 8080)),
        (near_asker, "UDP", "near:dns", 30_053, (&here, 5300)),
        (far_asker, "UDP", "far:dns", 30_054, (&there, 5300)),
    ] {
        let flow = flow(&nodes, from);
        let (pod, port) = endpoint;
        let expected: [(&str, Value); 7] = [
            ("protocol", protocol.into()),
            ("client", from.to_string().into()),
            ("frontend", at(frontend).to_string().into()),
            ("endpoint", format!("{}:{port}", pod.place.v4).into()),
            ("state", "established".into()),
            ("confirmed", true.into()),
            ("service", format!("{NAMESPACE}/{name}/{protocol}").into()),
        ];
        for (field, value) in expected {
            assert_eq!(flow[field], value, "{field} of {flow}");
        }
        let source = flow["source"].as_str().map(|source| source.parse::<SocketAddr>().expect("an address"));
        let (masqueraded, range) = (name.starts_with("far"), 50_000..51_000);
        assert_eq!(source.is_some(), masqueraded, "{flow}");
        assert!(source.is_none_or(|source| source.ip() == nodes.node().v4 && range.contains(&source.port())));
    }
    assert_eq!(answer(&nodes, &["flows", "--output", "json", "203.0.113.1"]), Value::Array(Vec::new()));

    // Only one of the flows is used.
    let others_gone = || {
        near.ask().expect("an answer");
        sleep(Duration::from_millis(300));
        confirmed(&nodes) == 1
    };
    wait_for(Duration::from_secs(40), "the agent releases idle flows", others_gone).expect("they go");
    assert_eq!(flow(&nodes, near_client)["confirmed"], true);
    assert_eq!(flow(&nodes, far_client)["confirmed"], false);
    assert_eq!(far.ask().expect("an answer").server, "there");
    assert_eq!(far.ask().expect("an answer").server, "there");
    assert_eq!(confirmed(&nodes), 2);
    assert_eq!(flow(&nodes, far_client)["confirmed"], true);
}

/// A connection for which FLOWS has no room is refused at once and counted by its reason; the others go on.
#[test]
fn connections_beyond_the_capacity_are_refused_and_counted() {
    // One region of FLOWS, the smallest size.
    const ROOM: u64 = 448;
    const CONNECTIONS: usize = 600;
    let nodes = two_nodes!(Variant::DIRECT);
    let pod = nodes.backend_here("here").expect("a pod");
    let service = Service::new("web", &["10.96.0.10"]).port(HTTP, Protocol::Tcp, 80).node_port(30_080);
    nodes.publish("web", &service, &[&pod]).expect("manifests");
    let room = ROOM.to_string();
    let _agent =
        Agent::reading(nodes.lab()).arguments(["--max-flows", &room]).started(nodes.lab()).expect("an agent");
    let at = nodes.at_node(30_080)[0];
    let mut refused = 0;
    let mut connections = Vec::new();
    nodes.outside().run(|| {
        for _ in 0..CONNECTIONS {
            match connect(at) {
                Ok(stream) => {
                    let mut conversation = Conversation::over(stream).expect("a connection");
                    // The server's accept queue is shorter than the table.
                    conversation.ask().expect("an answer");
                    connections.push(conversation);
                }
                Err(error) => {
                    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{error}");
                    refused += 1;
                }
            }
        }
    });
    assert!(refused >= CONNECTIONS as u64 - ROOM, "{refused}");
    for connection in &mut connections {
        assert_eq!(connection.ask().expect("an answer").client.ip(), nodes.outside().v4);
    }
    let status = answer(&nodes, &["status", "--output", "json"]);
    assert_eq!(named(&status["capacity"], "table", "FLOWS", "room"), ROOM);
    assert_eq!(named(&status["capacity"], "table", "FLOWS", "used"), connections.len() as u64);
    assert_eq!(status["refusals"]["flow-table-full"], refused);
}
