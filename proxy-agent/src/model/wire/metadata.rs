//! `metadata`, without what only other programs read.

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
    labels: Option<BTreeMap<String, String>>,
}

/// Decodes the parts that are used.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    let Slim { name, namespace, creation_timestamp, resource_version, labels } =
        Slim::deserialize(deserializer)?;
    Ok(ObjectMeta { name, namespace, creation_timestamp, resource_version, labels, ..ObjectMeta::default() })
}
