//! What a Service consists of: addresses in lists, ports, policies.

use proxy_common::{Address, Protocol};
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

/// An address and where in its list it stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Listed {
    /// Position in the list.
    pub index: u16,
    /// The address.
    pub address: Address,
}

/// A port of a Service.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ServicePort {
    /// Position in `spec.ports`.
    pub index: u16,
    /// Its name, by which EndpointSlices refer to it; empty for an unnamed port.
    pub name: SmolStr,
    /// Its protocol.
    pub protocol: Protocol,
    /// The port that clients use.
    pub port: u16,
    /// The port that clients use on the node's own addresses, if any (FE-4).
    pub node_port: Option<u16>,
}

/// Where traffic may go.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub enum TrafficPolicy {
    /// To endpoints on all nodes.
    #[default]
    Cluster,
    /// To endpoints on this node only.
    Local,
}
