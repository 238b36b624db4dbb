//! Where objects come from: an API server ([`kube`]), or a directory of manifests ([`manifests`]).
//!
//! Both produce the same stream: batches of [`Event`]s over a channel. The consumer filters repetitions; objects that
//! a source cannot see for a while (a broken connection, a file that does not parse) are not deleted.
//! [`Event::Synced`] comes once, when everything that exists has been reported.

#[doc(hidden)]
pub mod fuzzing;
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
mod secrets;
mod start_gate;
mod trouble;

pub use self::secrets::without_user;
pub use crate::model::{Event, Object};

/// Events that were ready at the same time.
pub type Batch = Vec<Event>;
