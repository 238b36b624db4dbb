//! Sidestep's agent as a library.
//!
//! Data flows one way: [`source`] (watch) -> [`model`] (slim objects) -> [`plan`] (what one node should install) ->
//! [`dataplane`] (install it in the kernel). No stage imports a later one. [`commands`] are the edges.

pub mod agent;
pub mod announce;
mod causes;
pub mod commands;
pub mod config;
pub mod dataplane;
mod memory;
pub mod model;
pub mod plan;
pub mod ports;
mod privileges;
pub mod serve;
pub mod source;
pub mod timeouts;
