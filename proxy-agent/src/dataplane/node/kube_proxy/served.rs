//! What a proxy serves at a frontend: kube-proxy by its rules, or Sidestep by its tables.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use proxy_common::{Address, FrontendKey};

use super::ranges::Ranges;

/// What clients of one frontend get.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Served {
    /// Its Service, such as `default/web:http`, as far as it is known.
    pub(crate) service: Option<String>,
    /// What pods and processes of this node get. Empty: they are refused.
    pub(crate) inside: Choice,
    /// What clients outside the node get.
    pub(crate) outside: Choice,
    /// The clients that are let in, where not all are.
    pub(crate) clients: Option<Ranges>,
}

/// The endpoints of which a client gets one.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Choice {
    /// The endpoints.
    pub(crate) endpoints: BTreeSet<SocketAddr>,
    /// For how many seconds a client keeps its endpoint (`sessionAffinityConfig`); 0 if it does not.
    pub(crate) seconds: u64,
}

/// All that a proxy serves.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Serves {
    /// By frontend.
    pub(crate) frontends: BTreeMap<FrontendKey, Served>,
    /// The addresses at which it serves NodePorts, where it names them.
    pub(crate) node_addresses: BTreeSet<Address>,
    /// Rules that were not understood, each named.
    pub(crate) not_understood: BTreeSet<String>,
}
