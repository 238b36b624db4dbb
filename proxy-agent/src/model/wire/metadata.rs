//! `metadata`, without what only other programs read. Of the annotations one is kept.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde::{Deserialize, Deserializer};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Slim {
    name: Option<String>,
    namespace: Option<String>,
    creation_timestamp: Option<Time>,
    resource_version: Option<String>,
    deletion_timestamp: Option<Time>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<Annotations>,
}

/// When the change was made that led to this version of an EndpointSlice.
pub(in crate::model) const TRIGGERED: &str = "endpoints.kubernetes.io/last-change-trigger-time";

#[derive(Deserialize)]
struct Annotations {
    #[serde(rename = "endpoints.kubernetes.io/last-change-trigger-time")]
    triggered: Option<String>,
}

/// Decodes the parts that are used.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    let Slim {
        name,
        namespace,
        creation_timestamp,
        resource_version,
        deletion_timestamp,
        labels,
        annotations,
    } = Slim::deserialize(deserializer)?;
    let triggered = annotations.and_then(|annotations| annotations.triggered);
    Ok(ObjectMeta {
        name,
        namespace,
        creation_timestamp,
        resource_version,
        deletion_timestamp,
        labels,
        annotations: triggered.map(|time| BTreeMap::from([(TRIGGERED.to_owned(), time)])),
        ..ObjectMeta::default()
    })
}
