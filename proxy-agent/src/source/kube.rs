//! Objects from an API server.
//!
//! One watch for each kind, filtered by the server so that only what matters crosses the network. Lists are
//! paged; a list that has to be taken again is a difference ([`Relist`]). While the server cannot be
//! reached, what was last known stays.

use std::{
    fmt::Debug,
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use ::kube::{
    Api, Client,
    runtime::{WatchStreamExt, watcher},
};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tracing::{debug, warn};

pub use super::client::{Error, connect};
use super::{
    Batch, Event,
    relist::{Relist, Step, Watched},
    start_gate::StartGate,
};
use crate::model::{Flaw, wire};

/// How many events are sent as one at most.
const BATCH: usize = 512;

/// Watches everything that matters to the node of this name until nobody listens any more.
pub async fn run(client: Client, node_name: &str, events: mpsc::Sender<Batch>) {
    let gate = StartGate::new();
    let config = || {
        // Watches end at different times on different nodes, so that they do not all come back at once.
        watcher::Config::default().timeout(150 + u32::try_from(random_below(50)).unwrap_or(0))
    };
    let services = config()
        .labels("!service.kubernetes.io/service-proxy-name") // IN-1
        .fields("spec.clusterIP!=None");
    let slices = config().labels("!service.kubernetes.io/headless"); // IN-3
    let node = config().fields(&format!("metadata.name={node_name}")); // IN-5
    tokio::join!(
        watch::<wire::Service>(Api::all(client.clone()), services, &gate, &events),
        watch::<wire::EndpointSlice>(Api::all(client.clone()), slices, &gate, &events),
        watch::<wire::Node>(Api::all(client), node, &gate, &events),
    );
}

/// Watches one kind. A watch that cannot be resumed where it was is started over.
async fn watch<W>(api: Api<W>, config: watcher::Config, gate: &StartGate, events: &mpsc::Sender<Batch>)
where
    W: Watched + DeserializeOwned + Clone + Debug + Send + 'static,
{
    let mut relist = Relist::default();
    let mut trouble = Trouble::new(W::KIND.name());
    loop {
        tokio::time::sleep(Duration::from_millis(random_below(500))).await;
        let stream = watcher(api.clone(), config.clone()).default_backoff().ready_chunks(BATCH);
        let mut stream = std::pin::pin!(stream);
        while let Some(chunk) = stream.next().await {
            let mut batch = Vec::new();
            let (mut complete, mut stuck) = (false, false);
            for item in chunk {
                match item {
                    Ok(event) => {
                        let Step { events, complete: ends } = relist.step(event);
                        batch.extend(events);
                        complete |= ends;
                        batch.extend(trouble.passed());
                    }
                    Err(error) => {
                        stuck |= cannot_resume(&error);
                        batch.extend(trouble.came(&error));
                    }
                }
            }
            if complete && gate.is_opened_by(W::KIND) {
                batch.push(Event::Synced);
            }
            if events.is_closed() || (!batch.is_empty() && events.send(batch).await.is_err()) {
                return;
            }
            if stuck {
                debug!(kind = W::KIND.name(), "the watch cannot be resumed; listing again");
                break;
            }
        }
    }
}

/// A watch that could not be started at its version asks for the same version for ever: the server has
/// forgotten it (410), or cannot find out (504).
fn cannot_resume(error: &watcher::Error) -> bool {
    let watcher::Error::WatchStartFailed(::kube::Error::Api(status)) = error else { return false };
    matches!(status.code, 410 | 504)
}

/// What is wrong with a watch, said once when it comes and once when it has passed.
struct Trouble {
    kind: &'static str,
    now: Option<String>,
}

impl Trouble {
    fn new(kind: &'static str) -> Self {
        Self { kind, now: None }
    }

    fn origin(&self) -> String {
        format!("watch of {}s", self.kind)
    }

    fn came(&mut self, error: &watcher::Error) -> Option<Event> {
        let message = error.to_string();
        if self.now.as_ref() == Some(&message) {
            return None;
        }
        warn!(kind = self.kind, %error, "watch failed; what was last known stays, trying again");
        self.now = Some(message.clone());
        let message =
            format!("{message}; what was last known stays; check the API server and the access rights");
        Some(Event::Found { origin: self.origin(), flaws: vec![Flaw::new("API server", message)] })
    }

    fn passed(&mut self) -> Option<Event> {
        self.now.take()?;
        Some(Event::Found { origin: self.origin(), flaws: Vec::new() })
    }
}

/// A number from 0 to `limit` - 1, different on every node.
fn random_below(limit: u64) -> u64 {
    RandomState::new().hash_one(limit) % limit
}

#[cfg(test)]
#[path = "kube_tests.rs"]
mod tests;
