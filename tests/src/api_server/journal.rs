//! A journal of requests, and of the objects that clients have written.

use std::time::Instant;

use serde_json::Value;

use super::Kind;

/// A request.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The requested kind.
    pub kind: Kind,
    /// Whether it was a watch, not a page of a list.
    pub watch: bool,
    /// The `resourceVersion`, if the request has one.
    pub version: Option<u64>,
    /// The HTTP status of the answer.
    pub status: u16,
    /// Bytes of the answer's body; 0 for a watch.
    pub bytes: usize,
    /// When the answer was ready.
    pub at: Instant,
}

/// An object that a client wrote.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// `POST`, `PATCH` or `PUT`.
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// The body.
    pub object: Value,
}

/// Everything, in order.
#[derive(Default, Debug)]
pub(super) struct Journal {
    pub(super) asked: Vec<Asked>,
    pub(super) recorded: Vec<Recorded>,
}
