//! The watches against a small double of an API server.

use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use super::*;
use crate::model::{Event, Kind};

/// Answers lists with one object of each kind, and each first watch with one change.
struct Double {
    address: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Double {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let seen = Arc::clone(&seen);
                thread::spawn(move || serve(&stream, &seen));
            }
        });
        Self { address, requests }
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("no panic").clone()
    }
}

/// Serves requests until the client hangs up. Headers are read and passed over.
fn serve(stream: &TcpStream, requests: &Mutex<Vec<String>>) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    while let Some(request) = lines.next() {
        lines.by_ref().take_while(|line| !line.is_empty()).for_each(drop);
        requests.lock().expect("no panic").push(request.clone());
        let mut stream = stream;
        if request.contains("watch=") {
            let event = format!("{}\n", json!({"type": "MODIFIED", "object": object(&request, "2")}));
            let head =
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
            let sent = write!(stream, "{head}{:x}\r\n{event}\r\n", event.len());
            if sent.is_err() {
                return;
            }
        } else {
            let list = json!({
                "apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "1"},
                "items": [object(&request, "1")],
            });
            let body = list.to_string();
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
            if write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).is_err() {
                return;
            }
        }
    }
}

/// The object that a request is about; its version is its last octet, too.
fn object(request: &str, version: &str) -> Value {
    let mut metadata = json!({
        "name": "n1", "namespace": "default", "resourceVersion": version,
        "creationTimestamp": "2024-01-01T00:00:00Z",
        "managedFields": [{"manager": "test", "fieldsV1": {"f:spec": {}}}],
    });
    if request.contains("/services") {
        return json!({"metadata": metadata, "spec": {"clusterIP": format!("10.0.0.{version}"), "ports": [{"port": 80}]}});
    }
    if request.contains("/endpointslices") {
        metadata["labels"] = json!({"kubernetes.io/service-name": "n1"});
        return json!({"metadata": metadata, "addressType": "IPv4", "endpoints": null, "ports": null});
    }
    if request.contains("/pods") {
        metadata["uid"] = json!("u");
        metadata["annotations"] =
            json!({"sidestep.dev/socket-lb": if version == "1" { "off" } else { "on" }});
        return json!({"metadata": metadata});
    }
    metadata["namespace"] = Value::Null;
    json!({"metadata": metadata, "status": {"addresses": [{"type": "InternalIP", "address": format!("192.168.0.{version}")}]}})
}

/// IN-1, IN-3, IN-5, IN-7: the selectors, and the start gate.
#[tokio::test]
async fn everything_is_listed_before_synced_and_then_followed() {
    let double = Double::start();
    let client = connect(Some(&double.address), None, None).await.expect("a client");
    let (sender, mut batches) = mpsc::channel(16);
    let running = tokio::spawn(run(client, "n1", sender));

    let mut kinds = Vec::new();
    let mut synced_after = None;
    while kinds.len() < 8 || synced_after.is_none() {
        let batch = tokio::time::timeout(Duration::from_secs(20), batches.recv()).await;
        for event in batch.expect("something comes").expect("the source goes on") {
            match event {
                Event::Upsert(object) => kinds.push(object.key().kind),
                Event::Synced => {
                    let needed = [Kind::Service, Kind::EndpointSlice, Kind::Node];
                    assert!(needed.iter().all(|kind| kinds.contains(kind)), "{kinds:?}");
                    synced_after = Some(kinds.len());
                }
                Event::PodsListed => {}
                other => panic!("unexpected {other:?}"),
            }
        }
    }
    assert!(synced_after >= Some(3));
    let requests = double.requests();
    for (path, selectors) in [
        (
            "/api/v1/services?",
            &[
                "fieldSelector=spec.clusterIP%21%3DNone&",
                "labelSelector=%21service.kubernetes.io%2Fservice-proxy-name&",
            ][..],
        ),
        (
            "/apis/discovery.k8s.io/v1/endpointslices?",
            &["labelSelector=%21service.kubernetes.io%2Fheadless&"],
        ),
        ("/api/v1/nodes?", &["fieldSelector=metadata.name%3Dn1&"]),
        ("/api/v1/pods?", &["fieldSelector=spec.nodeName%3Dn1&"]),
    ] {
        let of_kind: Vec<_> = requests.iter().filter(|request| request.contains(path)).collect();
        assert!(of_kind.len() >= 2, "{path} is listed and watched: {requests:#?}");
        for request in of_kind {
            assert!(selectors.iter().all(|selector| request.contains(selector)), "{request}");
        }
    }
    running.abort();
}

#[tokio::test]
async fn an_address_that_is_none_is_named() {
    let error = connect(Some("not an address"), None, None).await.err().expect("no client");
    assert!(error.to_string().contains("not an address"), "{error}");
}
