//! Objects from an API server.
//!
//! One watch for each kind ([`follow`]), filtered by the server so that only relevant objects cross the network. A
//! repeated list yields a difference. While the server is unreachable, the last known objects stay.

use ::kube::Client;
use tokio::sync::mpsc;

use super::{Batch, follow::follow, request::Requests, start_gate::StartGate};
pub use super::{
    client::{Error, connect, runs_programs},
    dial::MarkSocket,
};
use crate::model::wire;

/// Watches everything that concerns the node of this name until the receiver is dropped.
pub async fn run(client: Client, node_name: &str, events: mpsc::Sender<Batch>) {
    let gate = StartGate::new(node_name);
    let node = format!("metadata.name={node_name}");
    let services = Requests::<wire::Service>::new(
        client.clone(),
        Some("!service.kubernetes.io/service-proxy-name"), // IN-1
        Some("spec.clusterIP!=None"),
    );
    let slices = Requests::<wire::EndpointSlice>::new(
        client.clone(),
        Some("!service.kubernetes.io/headless"), // IN-3
        None,
    );
    let node = Requests::<wire::Node>::new(client.clone(), None, Some(&node)); // IN-5
    let here = format!("spec.nodeName={node_name}");
    let pods = Requests::<wire::Pod>::new(client, None, Some(&here));
    tokio::join!(
        follow(services, &gate, &events),
        follow(slices, &gate, &events),
        follow(node, &gate, &events),
        follow(pods, &gate, &events),
        go_on_without_node(&gate, &events),
    );
}

/// IN-5: without the Node everything works but what is local; without this, nothing would.
async fn go_on_without_node(gate: &StartGate, events: &mpsc::Sender<Batch>) {
    tokio::select! {
        () = events.closed() => {}
        // An error is that nobody listens any more.
        batch = gate.node_is_late() => if !batch.is_empty() { let _ = events.send(batch).await; },
    }
}

#[cfg(test)]
#[path = "kube_tests.rs"]
mod tests;
