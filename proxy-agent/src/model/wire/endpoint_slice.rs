//! `discovery.k8s.io/v1` EndpointSlice.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

/// An EndpointSlice.
#[derive(Clone, Default, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointSlice {
    /// `metadata`.
    #[serde(default, deserialize_with = "super::metadata::deserialize")]
    pub metadata: ObjectMeta,
    /// `addressType`.
    pub address_type: Option<String>,
    /// `endpoints`.
    pub endpoints: Option<Vec<Endpoint>>,
    /// `ports`.
    pub ports: Option<Vec<EndpointPort>>,
}

impl EndpointSlice {
    /// What an API server would have filled in: a port without a name is the unnamed port. For objects
    /// that never passed through one.
    #[must_use]
    pub fn with_api_defaults(mut self) -> Self {
        for port in self.ports.iter_mut().flatten() {
            port.name.get_or_insert_default();
        }
        self
    }
}

/// `endpoints[]`.
#[derive(Clone, Default, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// `addresses`; only the first one counts.
    pub addresses: Option<Vec<String>>,
    /// `conditions`.
    pub conditions: Option<Conditions>,
    /// `nodeName`.
    pub node_name: Option<String>,
    /// `hints`.
    pub hints: Option<Hints>,
}

/// `endpoints[].conditions`.
#[derive(Clone, Default, Debug, Deserialize)]
pub struct Conditions {
    /// `ready`.
    pub ready: Option<bool>,
    /// `serving`.
    pub serving: Option<bool>,
    /// `terminating`.
    pub terminating: Option<bool>,
}

/// `endpoints[].hints`.
#[derive(Clone, Default, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hints {
    /// `forNodes`.
    pub for_nodes: Option<Vec<HintTarget>>,
    /// `forZones`.
    pub for_zones: Option<Vec<HintTarget>>,
}

/// An element of a hint.
#[derive(Clone, Default, Debug, Deserialize)]
pub struct HintTarget {
    /// The node or the zone.
    pub name: String,
}

/// `ports[]`.
#[derive(Clone, Default, Debug, Deserialize)]
pub struct EndpointPort {
    /// `name`.
    pub name: Option<String>,
    /// `protocol`.
    pub protocol: Option<String>,
    /// `port`.
    pub port: Option<i64>,
}
