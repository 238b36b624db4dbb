//! The agent's report to the other commands: what the tables do not say.
//!
//! The maps are pinned, so `status` needs the agent only for what it could not install. A file (`run_dir`) keeps that
//! readable after the agent has crashed, when operators need it most.

use std::{net::IpAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    dataplane::{Device, PassedNamespace, Progress},
    model::{ObjectName, Pod, Problem},
};

/// The content of `report.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The agent's version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// The node that it plans for.
    pub node: String,
    /// Where it reads Services from.
    pub source: String,
    /// The cgroup that its programs are attached to.
    pub cgroup_root: PathBuf,
    /// Where its maps and links are pinned. Reports of older versions do not say it.
    #[serde(default)]
    pub pin_dir: PathBuf,
    /// Whether everything that exists has been read and installed once.
    pub synced: bool,
    /// How far the takeover from kube-proxy is, if the agent does it (`--take-over`).
    #[serde(default)]
    pub takeover: Option<Progress>,
    /// The uplinks.
    pub devices: Vec<Device>,
    /// The devices of pods whose packets are served.
    #[serde(default)]
    pub pod_devices: Vec<Device>,
    /// Whether the socket programs serve the node's own network namespace alone (`--socket-lb host-only`).
    #[serde(default)]
    pub host_only: bool,
    /// The network namespaces that the socket programs pass by.
    #[serde(default)]
    pub passed_by: Vec<PassedNamespace>,
    /// The Pods of this node, as far as the source tells them.
    #[serde(default)]
    pub pods: Vec<PodHere>,
    /// What could not be used or installed.
    pub problems: Vec<Problem>,
}

/// A Pod of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodHere {
    /// Namespace and name.
    #[serde(flatten)]
    pub name: ObjectName,
    /// What the names of its cgroups have.
    pub uid: Box<str>,
    /// Whether its processes are in the node's own network namespace.
    pub on_host: bool,
    /// Its addresses, unless they are the node's.
    pub addresses: Box<[IpAddr]>,
}

impl From<&Pod> for PodHere {
    fn from(pod: &Pod) -> Self {
        let Pod { name, uid, on_host, addresses, .. } = pod;
        Self { name: name.clone(), uid: uid.clone(), on_host: *on_host, addresses: addresses.clone() }
    }
}
