//! Writing Events to the API server (`events.k8s.io/v1`).
//!
//! `kubectl describe` finds a Service's events by its UID, which the agent does not keep: it requests the UID for
//! each Event, which is rare. For a Node the UID is its name, as in kubelet and kube-proxy.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ObjectReference, Service};
use kube::{
    Api, Client,
    api::ListParams,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use tokio::{
    sync::mpsc::Receiver,
    time::{Instant, sleep, timeout},
};
use tracing::{debug, warn};

use super::{Announcement, announcement::Regarding, restraint::Restraint};

/// `reportingController`.
const CONTROLLER: &str = "sidestep";
/// Longest `reportingInstance` that the API takes, in bytes.
const INSTANCE: usize = 128;
/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait before the second, third, … try.
const AGAIN: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(10), Duration::from_mins(1)];

/// Writes the queue's announcements as this node, until all senders are gone.
pub async fn publish(client: Client, node: &str, mut queue: Receiver<Announcement>) {
    let mut restraint = Restraint::new(Instant::now());
    let mut complained = false;
    while let Some(announcement) = queue.recv().await {
        if !restraint.is_news(&announcement, Instant::now()) {
            continue;
        }
        sleep(restraint.wait(Instant::now())).await;
        if let Err(error) = persist(&client, node, &announcement).await {
            if complained {
                debug!(%error, ?announcement, "cannot write an Event");
            } else {
                complained = true;
                warn!(
                    %error,
                    "cannot write Events (later failures are logged at level debug); check that the agent's \
                     role may create events in events.k8s.io, as system:node-proxier may"
                );
            }
        }
    }
}

/// Tries a few times, except for errors that repeat.
async fn persist(client: &Client, node: &str, announcement: &Announcement) -> Result<(), kube::Error> {
    let mut tries = AGAIN.into_iter();
    loop {
        let outcome = timeout(PATIENCE, write(client, node, announcement)).await;
        match (outcome, tries.next()) {
            (Ok(Ok(())), _) => return Ok(()),
            (Ok(Err(kube::Error::Api(status))), _) if (400..500).contains(&status.code) => {
                return Err(kube::Error::Api(status));
            }
            (Ok(Err(error)), None) => return Err(error),
            (Err(late), None) => return Err(kube::Error::Service(late.into())),
            (_, Some(wait)) => sleep(wait).await,
        }
    }
}

async fn write(client: &Client, node: &str, announcement: &Announcement) -> Result<(), kube::Error> {
    let Announcement { regarding, warning, reason, action, note } = announcement;
    let Some(reference) = reference(client, node, regarding).await? else {
        // A deleted Service needs no event.
        return Ok(());
    };
    let event = Event {
        type_: if *warning { EventType::Warning } else { EventType::Normal },
        reason: (*reason).to_owned(),
        note: Some(note.clone()),
        action: (*action).to_owned(),
        secondary: None,
    };
    let instance = node[..node.floor_char_boundary(INSTANCE)].to_owned();
    let reporter = Reporter { controller: CONTROLLER.to_owned(), instance: Some(instance) };
    // A new recorder each time: its cache would merge another note on the same object into the first event.
    // `restraint` already suppresses repetitions.
    Recorder::new(client.clone(), reporter).publish(&event, &reference).await
}

async fn reference(
    client: &Client,
    node: &str,
    regarding: &Regarding,
) -> Result<Option<ObjectReference>, kube::Error> {
    let name = match regarding {
        Regarding::Node => {
            return Ok(Some(ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Node".to_owned()),
                name: Some(node.to_owned()),
                uid: Some(node.to_owned()),
                ..ObjectReference::default()
            }));
        }
        Regarding::Service(name) => name,
    };
    let services: Api<Service> = Api::namespaced(client.clone(), name.namespace());
    // From the server's cache. The role may list, not get.
    let only = ListParams::default().match_any().fields(&format!("metadata.name={}", name.name()));
    let found = services.list_metadata(&only).await?.items.into_iter().next();
    Ok(found.map(|service| ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Service".to_owned()),
        namespace: Some(name.namespace().to_owned()),
        name: Some(name.name().to_owned()),
        uid: service.metadata.uid,
        ..ObjectReference::default()
    }))
}
