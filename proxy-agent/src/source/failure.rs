//! Failures between the agent and an API server, and the reaction to each.

use std::{fmt, io, time::Duration};

use ::kube::core::Status;

use crate::causes::Causes;

/// A request of a [`Course`](super::course::Course).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Request {
    /// A page of a list.
    Page,
    /// A watch.
    Watch,
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Page => "list",
            Self::Watch => "watch",
        })
    }
}

/// Why there is nothing, or nothing more, to be heard.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// No answer that could be used: the server said no, or there was no server.
    #[error("the {request} failed: {}", briefly(.error))]
    Request {
        /// Which request.
        request: Request,
        /// What kube says.
        error: Box<::kube::Error>,
    },
    /// No whole page, or no start of a watch, in time.
    #[error("the server did not answer the {request} within {limit:?}")]
    Late {
        /// Which request.
        request: Request,
        /// How long it was waited for.
        limit: Duration,
    },
    /// The connection broke.
    #[error("the watch broke: {}", Causes(.0))]
    Broken(io::Error),
    /// The server ended the watch early.
    #[error("the server ended the watch early")]
    EndedEarly,
    /// The server says in a watch that it cannot go on.
    #[error("the server ended the watch with an error: {} ({})", .0.message, .0.code)]
    GaveUp(Box<Status>),
    /// Something in a watch that is not an event, so its meaning is unknown.
    #[error("cannot read an event of the watch: {0}")]
    Unreadable(serde_json::Error),
    /// An object, bookmark or list without a version.
    #[error("the {0} returned no resourceVersion")]
    NoVersion(Request),
    /// An event that is older than one before it.
    #[error("the watch went back from resourceVersion {newest} to {heard}")]
    OutOfOrder {
        /// The newest version so far.
        newest: u64,
        /// What came.
        heard: u64,
    },
    /// A list older than an earlier one.
    #[error(
        "the list has resourceVersion {listed}, older than {newest} from before: this API server lags behind"
    )]
    Stale {
        /// The newest version so far.
        newest: u64,
        /// The list's.
        listed: u64,
    },
}

/// What kube says, in the server's words where there are some.
fn briefly(error: &::kube::Error) -> String {
    match error {
        ::kube::Error::Api(status) => format!("{} ({} {})", status.message, status.code, status.reason),
        other => Causes(other).to_string(),
    }
}

/// What to do after a failure, and the wait that follows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Remedy {
    /// The same request again, however often: it is the server that is missing, not an answer.
    Again,
    /// The same request again, but not for ever: it may be this one that the server cannot answer.
    AgainAFewTimes,
    /// A list from its start.
    List,
}

impl Failure {
    /// What helps.
    pub(super) fn remedy(&self) -> Remedy {
        match self {
            Self::Request { request, error } => match (request, &**error) {
                // The version, or the rest of the list, has been forgotten.
                (_, ::kube::Error::Api(status)) if status.code == 410 => Remedy::List,
                // The server cannot find out whether it still has the version: it says so for ever.
                (Request::Watch, ::kube::Error::Api(status)) if status.code == 504 => Remedy::List,
                (_, ::kube::Error::Api(status)) => match status.code {
                    // No access rights (yet), too many requests, and what is no fault of the request.
                    401 | 403 | 429 | 500.. => Remedy::Again,
                    _ => Remedy::AgainAFewTimes,
                },
                _ => Remedy::Again,
            },
            Self::GaveUp(status) if status.code == 410 => Remedy::List,
            Self::Late { .. } | Self::GaveUp(_) | Self::Unreadable(_) => Remedy::AgainAFewTimes,
            Self::Broken(_) | Self::EndedEarly => Remedy::Again,
            Self::NoVersion(_) | Self::OutOfOrder { .. } | Self::Stale { .. } => Remedy::List,
        }
    }

    /// How long the server asks to be left alone.
    pub(super) fn asked_for(&self) -> Option<Duration> {
        let Self::Request { error, .. } = self else { return None };
        let ::kube::Error::Api(status) = &**error else { return None };
        let seconds = status.details.as_ref()?.retry_after_seconds;
        (seconds > 0).then(|| Duration::from_secs(seconds.into()))
    }
}
