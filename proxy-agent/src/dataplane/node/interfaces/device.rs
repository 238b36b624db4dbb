//! A device with our programs, as people see it.

use std::{fmt, net::IpAddr};

use serde::{Deserialize, Serialize};

use super::choice::Why;

/// How our programs are attached to a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// As TCX links (6.6).
    Tcx,
    /// As filters in a `clsact` qdisc.
    Clsact,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        })
    }
}

/// A device with the programs, for people.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Why it was chosen.
    pub why: Why,
    /// How the programs are attached.
    pub way: Way,
    /// The node's addresses there, with which it masquerades.
    pub addresses: Vec<IpAddr>,
    /// Whether it leads to a pod, and is no uplink.
    #[serde(default)]
    pub of_pod: bool,
}
