//! What a plan consists of: the one type that planning hands to the dataplane.
//!
//! A plan says what one node installs, in the tables' own spelling, and nothing of how.

use std::{cmp::Ordering, collections::BTreeMap, fmt, ops::Range};

use proxy_common::{
    Address, AddressBits, FrontendKey, FrontendKind, Port, Protocol, Reason, SocketWish, SourceRange,
};
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use super::precedence::goes_first;
use crate::model::ObjectName;

/// The IP family of a Service port's frontends and endpoints.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What is planned and installed as one: a port of a Service in one family (FE-1, IN-10).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct ServicePortId {
    /// The Service. Not packed with the rest: who keeps a packed plan knows whose it is.
    #[serde(skip)]
    pub service: ObjectName,
    /// `spec.ports[].name`; empty for an unnamed port.
    pub port: SmolStr,
    /// `spec.ports[].protocol`.
    pub protocol: Protocol,
    /// `spec.ipFamilies[i]`.
    pub family: Family,
}

impl fmt::Display for ServicePortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, port, protocol, family } = self;
        write!(f, "{service}")?;
        if !port.is_empty() {
            write!(f, ":{port}")?;
        }
        write!(f, "/{protocol}{}", if *family == Family::V6 { " (IPv6)" } else { "" })
    }
}

/// An endpoint as the plan knows it. Address and port identify it within a Service port (EP-6).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct PlannedEndpoint {
    /// The pod's address.
    pub address: Address,
    /// The pod's port.
    pub port: Port,
    /// Whether the pod is on this node (EP-5): then north-south packets keep their client's address.
    pub local: bool,
    /// `conditions.serving`: flows that it has may stay, even where `Target`s leave it out.
    pub serving: bool,
}

/// What clients of one kind get.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Target {
    /// One of these: indices into [`ServicePlan::endpoints`], never empty.
    Endpoints(Range<u32>),
    /// Nothing.
    Refuse(Reason),
}

/// Who may use the LoadBalancer IPs (ST-1).
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub enum AllowedClients {
    /// Everyone.
    #[default]
    Everyone,
    /// Clients in one of these ranges, sorted; no client if the list is empty.
    Only(Box<[SourceRange]>),
}

/// Everything that one Service port needs installed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ServicePlan {
    /// The Service port that this plans.
    pub id: ServicePortId,
    /// The addresses that lead here, sorted. Never empty, and no other plan has the same key.
    pub frontends: Vec<(FrontendKey, FrontendKind)>,
    /// The clients that may use its LoadBalancer IPs.
    pub allowed_clients: AllowedClients,
    /// Seconds of ClientIP affinity, 0 for none.
    pub affinity_seconds: u32,
    /// All endpoints that are usable by some target or still serving, each once. Two different sets
    /// overlap in the middle (`only first | both | only second | serving but in no set`), so that each
    /// target is one contiguous range.
    pub endpoints: Vec<PlannedEndpoint>,
    /// For clients of the ClusterIP (internalTrafficPolicy).
    pub cluster: Target,
    /// For pods and processes of this node that use an external frontend (PO-3).
    pub inside: Target,
    /// For clients outside of this node that use an external frontend (externalTrafficPolicy).
    pub outside: Target,
}

impl ServicePlan {
    /// The order of installing: by name, after what goes first.
    pub fn order(&self, other: &Self) -> Ordering {
        let key = |plan: &Self| !goes_first(&plan.id.service);
        key(self).cmp(&key(other)).then_with(|| self.id.cmp(&other.id))
    }

    /// The LoadBalancer IPs among the frontends.
    pub fn load_balancer_ips(&self) -> impl Iterator<Item = Address> {
        let is_vip = |(_, kind): &&(FrontendKey, FrontendKind)| *kind == FrontendKind::LoadBalancer;
        self.frontends.iter().filter(is_vip).map(|(key, _)| key.address)
    }
}

/// What Pods say about their sockets, by their uid.
pub type PodWishes = BTreeMap<Box<str>, SocketWish>;

/// A difference between two plans.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Changes {
    /// Whether this is a part of the whole plan, of which more parts follow: nothing goes before the last one.
    pub more: bool,
    /// Whether this is the whole plan, or its last part: what is installed and not named in it goes. Addresses are all in
    /// the last part.
    pub complete: bool,
    /// New and changed Service ports, whole.
    pub install: Vec<ServicePlan>,
    /// Removed Service ports.
    pub remove: Vec<ServicePortId>,
    /// New values of ADDRESSES; no bits removes the address.
    pub addresses: Vec<(Address, AddressBits)>,
    /// What Pods say about their sockets, if that has changed.
    pub pods: Option<PodWishes>,
}

impl Changes {
    /// Families of the Service ports that change.
    pub fn families(&self) -> impl Iterator<Item = Family> {
        self.install.iter().map(|plan| &plan.id).chain(&self.remove).map(|id| id.family)
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        let Self { more, complete, install, remove, addresses, pods } = self;
        let is_quiet = !more && !complete && pods.is_none();
        is_quiet && install.is_empty() && remove.is_empty() && addresses.is_empty()
    }
}
