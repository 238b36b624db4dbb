//! `metadata`, without what only other programs read. Of the annotations three are kept.

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
    uid: Option<String>,
    deletion_timestamp: Option<Time>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<Annotations>,
}

/// When the change was made that led to this version of an EndpointSlice.
pub(in crate::model) const TRIGGERED: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// Of a Pod: `off` if its sockets are to be passed by, `on` if they are to be served whatever its network namespace looks
/// like.
pub(in crate::model) const SOCKET_LB: &str = "sidestep.dev/socket-lb";

/// Of a static Pod: what kubelet has for its uid.
pub(in crate::model) const MIRROR: &str = "kubernetes.io/config.mirror";

#[derive(Deserialize)]
struct Annotations {
    #[serde(rename = "endpoints.kubernetes.io/last-change-trigger-time")]
    triggered: Option<String>,
    #[serde(rename = "sidestep.dev/socket-lb")]
    socket_lb: Option<String>,
    #[serde(rename = "kubernetes.io/config.mirror")]
    mirror: Option<String>,
}

/// Decodes the parts that are used.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    let Slim {
        name,
        namespace,
        creation_timestamp,
        resource_version,
        uid,
        deletion_timestamp,
        labels,
        annotations,
    } = Slim::deserialize(deserializer)?;
    let kept = annotations.map(|Annotations { triggered, socket_lb, mirror }| {
        let all = [(TRIGGERED, triggered), (SOCKET_LB, socket_lb), (MIRROR, mirror)];
        all.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect::<BTreeMap<_, _>>()
    });
    Ok(ObjectMeta {
        name,
        namespace,
        creation_timestamp,
        resource_version,
        uid,
        deletion_timestamp,
        labels,
        annotations: kept.filter(|kept| !kept.is_empty()),
        ..ObjectMeta::default()
    })
}
