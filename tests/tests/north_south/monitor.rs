//! `sidestep monitor`: what becomes of north-south connections, and which are refused.

use std::{net::SocketAddr, thread::sleep, time::Duration};

use serde_json::Value;
use sidestep_tests::{
    cluster::HTTP,
    eventually,
    frames::FrameSender,
    listener::Listener,
    manifest::{EndpointSlice, Protocol, Service},
    traffic::{Conversation, connect},
    two_nodes,
    two_nodes::Variant,
};

/// What happened to the connection of this client port, in order.
fn story(events: &[Value], port: u16) -> Vec<String> {
    let is_its = |event: &&Value| {
        event["client"]["address"].as_str().is_some_and(|address| address.ends_with(&format!(":{port}")))
    };
    let told = |event: &Value| {
        let by = event["by"].as_str().map(|by| format!(" by {by}")).unwrap_or_default();
        format!("{}{by}", event["event"].as_str().unwrap_or_default())
    };
    events.iter().filter(is_its).map(told).collect()
}

#[test]
fn connections_begin_and_end_and_are_refused() {
    let nodes = two_nodes!(Variant::DIRECT);
    let here = nodes.backend_here("here").expect("a pod");
    let service = |name: &str, address: &str, port| {
        Service::new(name, &[address]).port(HTTP, Protocol::Tcp, 80).node_port(port)
    };
    nodes.publish("web", &service("web", "10.96.0.10", 30_080), &[&here]).expect("manifests");
    nodes.publish("empty", &service("empty", "10.96.0.11", 30_081), &[]).expect("manifests");
    // Nobody listens at this port.
    let closed = EndpointSlice::new("closed").port(HTTP, Protocol::Tcp, 8_888).ready(here.place.v4);
    let manifests = nodes.lab().manifests();
    manifests.write("closed.yaml", &[&service("closed", "10.96.0.12", 30_082), &closed]).expect("manifests");
    let _agent = nodes.lab().agent().expect("an agent");
    let listener = Listener::start(nodes.lab(), &[]).expect("a listener");
    let client = nodes.outside().v4.to_string();
    let of_client = Listener::start(nodes.lab(), &["--client", &format!("outside:{client}"), "closed"])
        .expect("a listener");
    let of_another =
        Listener::start(nodes.lab(), &["--client", "outside:198.51.100.99"]).expect("a listener");

    let at = |port: u16| nodes.at_node(port)[0];
    let ports = nodes.outside().run(|| {
        [false, true].map(|aborts| {
            let stream = connect(at(30_080)).expect("a connection");
            let port = stream.local_addr().expect("an address").port();
            let mut conversation = Conversation::over(stream).expect("a connection");
            conversation.ask().expect("an answer");
            if aborts { conversation.abort() } else { conversation.close() }.expect("an end");
            port
        })
    });
    nodes.outside().run(|| connect(at(30_081))).expect_err("no endpoint");
    nodes.outside().run(|| connect(at(30_082))).expect_err("nobody listens");

    // Each by its port; who ends a connection that both close is a race.
    for (port, expected) in
        ports.into_iter().zip([["began", "confirmed", "ended"], ["began", "confirmed", "reset by client"]])
    {
        listener.wait_for(1, |_| story(&listener.events(), port).len() >= 3);
        assert_eq!(story(&listener.events(), port), expected, "{:?}", listener.events());
    }
    let began = listener.wait_for(1, |event| event["event"] == "began").remove(0);
    assert_eq!(began["service"], "default/web:http/TCP");
    assert_eq!(began["frontend"], format!("{}/TCP", at(30_080)));
    assert_eq!(began["endpoint"], SocketAddr::from((here.place.v4, 8_080)).to_string());

    let refused = listener.wait_for(2, |event| event["event"] == "refused");
    let told = |event: &Value| {
        let field = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        (
            event["client"]["address"].as_str().unwrap_or_default().to_owned(),
            field("service"),
            field("reason"),
        )
    };
    let expected =
        [("default/empty:http/TCP", "no-endpoints"), ("default/closed:http/TCP", "reset-by-endpoint")]
            .map(|(service, reason)| (client.clone(), service.to_owned(), reason.to_owned()));
    assert_eq!(refused.iter().map(told).collect::<Vec<_>>(), expected);
    let of_closed = of_client.wait_for(3, |_| true);
    let kinds: Vec<&str> = of_closed.iter().filter_map(|event| event["event"].as_str()).collect();
    assert_eq!(kinds, ["began", "reset", "refused"], "{of_closed:?}");
    assert_eq!(of_another.interrupt().expect("an end").0, Vec::<Value>::new());

    // The record has both, and `explain` tells the client.
    let output =
        nodes.lab().sidestep(&["monitor", "--since", "1h", "--for", "0s", "-o", "json"]).expect("it runs");
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let recorded: Vec<Value> = lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert_eq!(recorded.iter().map(told).collect::<Vec<_>>(), expected, "{lines}");
    let explained = nodes
        .lab()
        .sidestep(&["explain", &format!("outside:{client}"), &at(30_082).to_string()])
        .expect("it runs");
    let text = String::from_utf8_lossy(&explained.stdout).into_owned();
    assert!(text.contains("refused     reset-by-endpoint, this client, once: "), "{text}");
    let other =
        nodes.lab().sidestep(&["explain", "outside:198.51.100.7", &at(30_082).to_string()]).expect("it runs");
    let text = String::from_utf8_lossy(&other.stdout).into_owned();
    assert!(text.contains(&format!("others in the last hour: {client}")), "{text}");
}

/// A flood takes slots of connections that are not confirmed. Few of its clients are recorded, and all are counted.
#[test]
fn a_flood_is_told_and_counted() {
    let nodes = two_nodes!(Variant::DIRECT);
    let service = Service::new("web", &["10.96.0.10"]).port(HTTP, Protocol::Tcp, 80).node_port(30_080);
    // Nobody is there: an answer to a forged client could end its connection.
    let silent = EndpointSlice::new("web").port(HTTP, Protocol::Tcp, 8_080).ready([10, 244, 1, 250]);
    nodes.lab().manifests().write("web.yaml", &[&service, &silent]).expect("manifests");
    let empty = Service::new("empty", &["10.96.0.11"]).port(HTTP, Protocol::Tcp, 80).node_port(30_081);
    nodes.publish("empty", &empty, &[]).expect("manifests");
    let _agent = nodes.lab().agent().expect("an agent");
    let listener = Listener::start(nodes.lab(), &["--only", "evicted"]).expect("a listener");
    let mut sender = FrameSender::new(&nodes).expect("a sender");
    let source = |number: u32| {
        let [_, a, b, c] = number.to_be_bytes();
        SocketAddr::from(([198, 18 + (a & 1), b, c], 40_000))
    };
    let destination = |port| nodes.at_node(port)[0];
    // More than FLOWS has slots.
    for number in 0..20_000 {
        sender.syn(source(number), destination(30_080), 1).expect("a frame");
    }
    let evicted = listener.wait_for(100, |event| event["event"] == "evicted");
    assert!(evicted.iter().all(|event| event["service"] == "default/web:http/TCP"));
    // Of more refused clients than may be new in a few seconds, some are recorded, and all are counted.
    let refused_before = 5_000;
    for number in 0..refused_before {
        sender.syn(source(number), destination(30_081), 1).expect("a frame");
    }
    let status = || -> Value {
        let output = nodes.lab().sidestep(&["status", "-o", "json"]).expect("it runs");
        serde_json::from_slice(&output.stdout).expect("JSON")
    };
    let refused = |status: &Value| {
        let all = status["services"].as_array()?;
        let empty = all.iter().find(|one| one["service"] == "default/empty:http/TCP")?;
        empty["refusals"]["no-endpoints"].as_u64()
    };
    // A busy node may lose a frame before any program sees it.
    eventually("most are refused", || refused(&status()) > Some(u64::from(refused_before) / 2));
    sleep(Duration::from_millis(500));
    let told = status();
    let unrecorded = told["events"]["unrecorded-refusals"].as_u64().unwrap_or_default();
    let output =
        nodes.lab().sidestep(&["monitor", "--since", "1h", "--for", "0s", "-o", "json"]).expect("it runs");
    let recorded = String::from_utf8_lossy(&output.stdout).lines().count() as u64;
    assert!(recorded >= 20 && unrecorded > 0, "{recorded} recorded, {unrecorded} not");
    assert_eq!(refused(&told), Some(recorded + unrecorded), "{recorded} recorded, {unrecorded} not");
}
