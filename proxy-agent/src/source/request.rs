//! Requests to an API server for objects of one kind, each with a limit of time.
//!
//! kube's client only limits the time to connect: it would wait for ever for a server that accepts a request and
//! never answers. A limit on *reading* does not help, since a watch may be silent for minutes.

use std::time::Duration;

use ::kube::{
    Api, Client,
    api::{ListParams, ObjectList, WatchEvent, WatchParams},
    core,
};
use futures_util::{AsyncBufReadExt as _, Stream, StreamExt as _};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::{
    failure::{Failure, Request},
    relist::Watched,
};

/// How long a whole page may take. The server gives up after 60 s itself (`--request-timeout`).
pub(super) const PAGE: Duration = Duration::from_secs(75);
/// How long a watch may take to start. The server answers at once; where it queues requests, or waits for its cache,
/// after a few seconds.
pub(super) const START: Duration = Duration::from_secs(30);
/// How long after its time a watch may go on. The server is to end it, and a server that is not there any more
/// cannot.
const MARGIN: Duration = Duration::from_secs(15);

/// What to ask for, and whom.
pub(super) struct Requests<W> {
    client: Client,
    api: Api<W>,
    labels: Option<String>,
    fields: Option<String>,
}

/// A watch that has started.
pub(super) struct Watching<S> {
    /// What it says, line by line.
    pub(super) events: S,
    /// How long the server is to let it go on.
    pub(super) lasts: Duration,
    /// How long to listen at all.
    pub(super) patience: Duration,
}

impl<W: Watched + DeserializeOwned + Clone + std::fmt::Debug> Requests<W> {
    /// Everything of the kind that these selectors let through.
    pub(super) fn new(client: Client, labels: Option<&str>, fields: Option<&str>) -> Self {
        let api = Api::all(client.clone());
        Self { client, api, labels: labels.map(Into::into), fields: fields.map(Into::into) }
    }

    /// A page of a list, of the newest version that there is, or that the server's cache has.
    pub(super) async fn page(&self, token: Option<&str>, limit: u32) -> Result<ObjectList<W>, Failure> {
        let parameters = ListParams {
            label_selector: self.labels.clone(),
            field_selector: self.fields.clone(),
            limit: Some(limit),
            continue_token: token.map(Into::into),
            // With a token the version is the token's.
            resource_version: (W::FROM_CACHE && token.is_none()).then(|| "0".to_owned()),
            ..ListParams::default()
        };
        let late = |_| Failure::Late { request: Request::Page, limit: PAGE };
        let page = timeout(PAGE, self.api.list(&parameters)).await.map_err(late)?;
        page.map_err(|error| Failure::Request { request: Request::Page, error: error.into() })
    }

    /// A watch after this version for so many seconds.
    pub(super) async fn watch(
        &self,
        version: &str,
        seconds: u32,
    ) -> Result<Watching<impl Stream<Item = Result<WatchEvent<W>, Failure>> + use<W>>, Failure> {
        let parameters = WatchParams {
            label_selector: self.labels.clone(),
            field_selector: self.fields.clone(),
            timeout: Some(seconds),
            bookmarks: true,
            send_initial_events: false,
        };
        let failed = |error| Failure::Request { request: Request::Watch, error: Box::new(error) };
        let request = core::Request::new(W::url_path(&(), None)).watch(&parameters, version);
        let request = request.map_err(|error| failed(::kube::Error::BuildRequest(error)))?;
        let late = |_| Failure::Late { request: Request::Watch, limit: START };
        let stream =
            timeout(START, self.client.request_stream(request)).await.map_err(late)?.map_err(failed)?;
        let events = stream.lines().map(|line| {
            let line = line.map_err(Failure::Broken)?;
            serde_json::from_str(&line).map_err(Failure::Unreadable)
        });
        let lasts = Duration::from_secs(seconds.into());
        Ok(Watching { events, lasts, patience: lasts + MARGIN })
    }
}
