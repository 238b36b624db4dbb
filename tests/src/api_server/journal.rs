//! What clients have asked for, and what they have written.

use std::time::Instant;

use serde_json::Value;

use super::Kind;

/// A request.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The kind that was asked for.
    pub kind: Kind,
    /// Whether it was a watch; else a page of a list.
    pub watch: bool,
    /// From which `resourceVersion`, if the request names one.
    pub version: Option<u64>,
    /// The HTTP status of the answer.
    pub status: u16,
    /// Bytes of the answer's body; 0 for a watch.
    pub bytes: usize,
    /// When the answer was ready to be sent.
    pub at: Instant,
}

/// Something that a client wrote.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// `POST`, `PATCH` or `PUT`.
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// The body.
    pub object: Value,
}

/// All of it, in order.
#[derive(Default, Debug)]
pub(super) struct Journal {
    pub(super) asked: Vec<Asked>,
    pub(super) recorded: Vec<Recorded>,
}
