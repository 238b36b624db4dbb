//! One watch: a line of JSON for each change, until the client has enough or the time it asked for is over.

use std::time::Duration;

use http_body_util::{BodyExt as _, channel::Channel};
use hyper::body::Bytes;
use serde_json::json;
use tokio::time::Instant;

use super::{Body, Kind, Objects, locked, selector::Selector};

/// How often a client hears from a watch that has nothing to say, if it asked for bookmarks.
const BOOKMARK: Duration = Duration::from_mins(1);
/// How long a watch lasts if the request does not say.
const LONGEST: u64 = 3600;

/// What is watched.
pub(super) struct Watch {
    pub(super) kind: Kind,
    pub(super) selector: Selector,
    pub(super) bookmarks: bool,
    /// How long.
    pub(super) seconds: Option<u64>,
    /// The version after which changes are told.
    pub(super) from: u64,
}

/// Starts it on the current runtime; its body is the stream.
pub(super) fn start(objects: Objects, watch: Watch) -> Body {
    let (mut sender, body) = Channel::<Bytes, std::io::Error>::new(16);
    tokio::spawn(async move {
        let until = Instant::now() + Duration::from_secs(watch.seconds.unwrap_or(LONGEST));
        let mut version = objects.0.version.subscribe();
        let mut told = watch.from;
        let mut bookmark = Instant::now() + BOOKMARK;
        loop {
            // Marked as seen before the history is read: what comes in between is seen twice, not never.
            version.borrow_and_update();
            let (changes, now) = {
                let store = locked(&objects.0.store);
                (store.since(told), store.version())
            };
            let Some(changes) = changes else {
                // Forgotten while this client was slow.
                let _ = sender.send_data(expired()).await;
                return;
            };
            let mut lines = Vec::new();
            for change in &changes {
                if let Some((event, object)) = change.seen_by(watch.kind, &watch.selector) {
                    lines.extend_from_slice(format!(r#"{{"type":"{event}","object":"#).as_bytes());
                    lines.extend_from_slice(&object);
                    lines.extend_from_slice(b"}\n");
                }
            }
            told = now;
            if !lines.is_empty() && sender.send_data(lines.into()).await.is_err() {
                return;
            }
            tokio::select! {
                changed = version.changed() => if changed.is_err() { return },
                () = tokio::time::sleep_until(bookmark), if watch.bookmarks => {
                    bookmark = Instant::now() + BOOKMARK;
                    if sender.send_data(bookmark_at(watch.kind, told)).await.is_err() {
                        return;
                    }
                }
                () = tokio::time::sleep_until(until) => return,
            }
        }
    });
    body.boxed()
}

fn bookmark_at(kind: Kind, version: u64) -> Bytes {
    let (api_version, name) = kind.type_meta();
    let object = json!({"kind": name, "apiVersion": api_version,
        "metadata": {"resourceVersion": version.to_string(), "creationTimestamp": null}});
    format!("{}\n", json!({"type": "BOOKMARK", "object": object})).into()
}

/// The event of a watch whose history was forgotten.
pub(super) fn expired() -> Bytes {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "too old resource version", "reason": "Expired", "code": 410});
    format!("{}\n", json!({"type": "ERROR", "object": status})).into()
}
