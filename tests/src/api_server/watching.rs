//! One watch: a line of JSON for each change, until the client disconnects or its timeout is over.

use std::time::Duration;

use http_body_util::{BodyExt as _, channel::Channel};
use hyper::body::Bytes;
use serde_json::json;
use tokio::time::Instant;

use super::{
    Body, Kind, Objects, locked,
    selector::Selector,
    telling::{End, Teller},
};

/// The interval of bookmarks of an idle watch, if the client asked for bookmarks.
const BOOKMARK: Duration = Duration::from_mins(1);
/// The default duration of a watch.
const LONGEST: u64 = 3600;

/// What is watched.
pub(super) struct Watch {
    pub(super) kind: Kind,
    pub(super) selector: Selector,
    pub(super) bookmarks: bool,
    /// How long.
    pub(super) seconds: Option<u64>,
    /// The version after which the watch sends changes.
    pub(super) from: u64,
}

/// Starts it on the current runtime; its body is the stream.
pub(super) fn start(objects: Objects, watch: Watch) -> Body {
    let (mut sender, body) = Channel::<Bytes, std::io::Error>::new(16);
    tokio::spawn(async move {
        let until = Instant::now() + Duration::from_secs(watch.seconds.unwrap_or(LONGEST));
        let mut version = objects.0.version.subscribe();
        let mut told = watch.from;
        let mut teller = Teller::default();
        let cuts = locked(&objects.0.faults).cuts;
        let mut bookmark = Instant::now() + BOOKMARK;
        loop {
            // Mark the version as seen before reading the history: a change in between is then seen twice, not missed.
            version.borrow_and_update();
            let (changes, now) = {
                let store = locked(&objects.0.store);
                (store.since(told), store.version())
            };
            let Some(changes) = changes else {
                // The history was forgotten while this client was slow.
                let _ = sender.send_data(expired()).await;
                return;
            };
            let mut end = (locked(&objects.0.faults).cuts != cuts).then_some(End::Broken);
            for change in &changes {
                if end.is_some() {
                    break;
                }
                if let Some((event, object)) = change.seen_by(watch.kind, &watch.selector) {
                    let mut line = format!(r#"{{"type":"{event}","object":"#).into_bytes();
                    line.extend_from_slice(&object);
                    line.extend_from_slice(b"}\n");
                    let slip = locked(&objects.0.faults).line();
                    end = teller.tell(watch.kind, change.version, &line, slip);
                }
            }
            told = now;
            let lines = teller.take();
            if !lines.is_empty() && sender.send_data(lines.into()).await.is_err() {
                return;
            }
            match end {
                None => {}
                Some(End::Whole) => return,
                Some(End::Broken) => return sender.abort(std::io::ErrorKind::ConnectionReset.into()),
                Some(End::Never) => return std::future::pending().await,
            }
            tokio::select! {
                changed = version.changed() => if changed.is_err() { return },
                () = tokio::time::sleep_until(bookmark), if watch.bookmarks => {
                    bookmark = Instant::now() + BOOKMARK;
                    teller.tell_bookmark(&bookmark_at(watch.kind, told));
                    if sender.send_data(teller.take().into()).await.is_err() {
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
