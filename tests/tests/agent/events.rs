//! The agent's Events, as `kubectl describe` of a Service or of the Node shows them.

use std::{net::TcpListener, thread::sleep, time::Duration};

use serde_json::{Value, json};
use sidestep_tests::{
    Agent,
    agent::NODE_NAME,
    api_server::{ApiServer, Objects},
    cluster::at,
    eventually, lab,
    traffic::{connect, is_refused},
};

/// A Service in `default`; `spec` adds to its usual fields.
fn service(name: &str, cluster_ip: &str, spec: &Value) -> Value {
    let mut object = json!({"kind": "Service", "apiVersion": "v1",
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-of-{name}"),
            "creationTimestamp": "2024-01-01T00:00:00Z"},
        "spec": {"clusterIP": cluster_ip, "ports": [{"port": 80, "protocol": "TCP"}]}});
    for (field, value) in spec.as_object().expect("fields") {
        object["spec"][field] = value.clone();
    }
    object
}

/// The events with this reason.
fn events(server: &Objects, reason: &str) -> Vec<Value> {
    let recorded = server.recorded().into_iter().filter(|written| written.object["reason"] == reason);
    recorded
        .map(|written| {
            assert_eq!(written.method, "POST");
            assert_eq!(written.path, "/apis/events.k8s.io/v1/namespaces/default/events");
            assert_eq!(written.object["reportingController"], "sidestep");
            assert_eq!(written.object["reportingInstance"], NODE_NAME);
            written.object
        })
        .collect()
}

/// HE-3, HE-5: kube-proxy's reasons, and one for a Service that could not be installed.
#[test]
fn each_problem_becomes_one_event() {
    let lab = lab!();
    let node = lab.node();
    let taken: Vec<TcpListener> = ["0.0.0.0:10256", "127.0.0.1:10249", "0.0.0.0:32100"]
        .into_iter()
        .map(|address| node.namespace().run(|| TcpListener::bind(address)).expect("entered").expect("bound"))
        .collect();
    let objects = Objects::default();
    objects.put(json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": NODE_NAME},
        "status": {"addresses": [{"type": "InternalIP", "address": node.v4.to_string()}]}}));
    let health_check =
        json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 32100});
    objects.put(service("probed", "10.96.0.8", &health_check));
    objects.put(service("first", "10.96.0.9", &json!({})));
    // Second in the order of names.
    objects.put(service("second", "10.96.0.9", &json!({})));
    let server = ApiServer::start(node.namespace(), objects).expect("an API server");
    let mut agent = Agent::follow(&lab, &server).expect("an agent");

    let expected = [
        ("Starting", "Normal", "Node", NODE_NAME, NODE_NAME),
        ("FailedToStartProxierHealthcheck", "Warning", "Node", NODE_NAME, NODE_NAME),
        ("FailedToStartMetricServer", "Warning", "Node", NODE_NAME, NODE_NAME),
        ("FailedToStartServiceHealthcheck", "Warning", "Service", "probed", "uid-of-probed"),
        ("FailedToInstall", "Warning", "Service", "second", "uid-of-second"),
    ];
    eventually("the agent writes every event", || {
        expected.iter().all(|told| !events(&server, told.0).is_empty())
    });
    // Changes of other objects: the agent looks at its problems again after each.
    for number in 1..=10 {
        server.put(service(&format!("news-{number}"), &format!("10.96.9.{number}"), &json!({})));
        let address = at(&format!("10.96.9.{number}:80"));
        eventually("the new Service is installed", || node.run(|| is_refused(&connect(address))));
    }
    sleep(Duration::from_millis(200));
    for (reason, kind, regarding, name, uid) in expected {
        let events = events(&server, reason);
        assert_eq!(events.len(), 1, "{reason}: {events:#?}");
        let event = &events[0];
        assert_eq!(event["type"], kind, "{event}");
        assert_eq!(event["regarding"]["kind"], regarding, "{event}");
        assert_eq!(event["regarding"]["name"], name, "{event}");
        assert_eq!(event["regarding"]["uid"], uid, "{event}");
    }
    let note = events(&server, "FailedToInstall")[0]["note"].as_str().expect("a note").to_owned();
    assert!(note.contains("10.96.0.9:80") && note.contains("default/first"), "{note}");
    assert_eq!(server.recorded().len(), expected.len(), "{:#?}", server.recorded());

    // Another problem becomes another event.
    server.put(service("third", "10.96.0.8", &json!({})));
    eventually("the agent writes the new problem", || events(&server, "FailedToInstall").len() == 2);
    agent.stop().expect("it ends");
    drop(taken);
}
