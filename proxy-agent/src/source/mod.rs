//! Where objects come from: an API server ([`kube`]), or a directory of manifests ([`manifests`]).
//!
//! Both give the same stream: batches of [`Event`]s over a channel. What a source repeats is filtered by
//! whoever consumes it; what a source loses sight of for a while (a broken connection, a file that does not
//! parse) is not deleted. [`Event::Synced`] comes once, when everything that exists has been reported.

pub mod kube;
pub mod manifests;

mod backoff;
mod catalog;
mod client;
mod course;
mod dial;
mod directory;
mod documents;
mod failure;
mod follow;
mod relist;
mod request;
mod start_gate;
mod trouble;

pub use crate::model::{Event, Object};

/// Events that were ready at the same time.
pub type Batch = Vec<Event>;
