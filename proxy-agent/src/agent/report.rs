//! The agent's report to the other commands: what the tables do not say.
//!
//! The maps are pinned, so `status` needs the agent only for what it could not install. A file (`run_dir`) keeps that
//! readable after the agent has crashed, when operators need it most.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{
    dataplane::{Device, PassedNamespace, Progress},
    model::Problem,
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
    /// What could not be used or installed.
    pub problems: Vec<Problem>,
}
