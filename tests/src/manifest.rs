//! Ordinary Kubernetes manifests, and the directory that the agent watches.
//!
//! Builders cover only what scenarios need; the `Display` of each is the YAML text of one object.

mod directory;
mod node;
mod service;
mod slice;

pub use directory::Manifests;
pub use node::Node;
pub use service::Service;
pub use slice::{Conditions, EndpointSlice};

/// The namespace of every object.
pub const NAMESPACE: &str = "default";

/// A protocol as manifests spell it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}
