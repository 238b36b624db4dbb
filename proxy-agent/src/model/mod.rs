//! What the agent knows of the cluster: Services, EndpointSlices, its own Node and its Pods, slim.
//!
//! Objects come in as [`wire`] types, which decode whatever the API allows and nothing more than is used. Reading one
//! ([`Service::read`], [`EndpointSlice::read`], [`Node::read`], [`Pod::read`]) checks every field once: what is kept is valid by its
//! type, and each field that cannot be used becomes a [`Flaw`] that names it, while the rest of the object stays in
//! use. The [`Store`] keeps the objects and says which Services a change touches. Nothing here decides where traffic
//! goes: that is the plan's job.

mod address;
mod endpoint_slice;
mod event;
mod flaw;
mod name;
mod node;
mod packed;
mod pod;
mod port;
mod problem;
mod service;
mod service_fields;
mod service_parts;
mod slices;
mod source_ranges;
mod store;
mod subject;
mod unread;
pub mod wire;

pub use endpoint_slice::{Conditions, Endpoint, EndpointPort, EndpointSlice, Hints};
pub use event::{Event, Object};
pub use flaw::{Flaw, Flaws};
pub use name::{Kind, ObjectKey, ObjectName};
pub use node::Node;
pub use packed::Packed;
pub use pod::Pod;
pub use problem::Problem;
pub use service::Service;
pub use service_parts::{Listed, ServicePort, TrafficPolicy};
pub use source_ranges::SourceRanges;
pub use store::{Store, Touched};
pub use subject::{Position, Subject};
pub use unread::Unread;
