//! Sidestep's agent as a library.
//!
//! Data flows one way: [`source`] (watch) -> [`model`] (objects, slim) -> [`plan`] (what one node should
//! install) -> [`dataplane`] (make the kernel so). Nothing points backwards. [`commands`] are the edges.

pub mod agent;
pub mod announce;
mod causes;
pub mod commands;
pub mod config;
pub mod dataplane;
pub mod model;
pub mod plan;
pub mod ports;
pub mod serve;
pub mod source;
pub mod timeouts;
