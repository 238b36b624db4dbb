//! The machine's programs: the agent and the first process, as static binaries.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;

use crate::build::{agent::Profile, freestanding};
use crate::workspace;

/// The binaries of the machine.
pub(super) struct Guest {
    /// `sidestep`.
    pub(super) agent: PathBuf,
    /// The first process.
    pub(super) init: PathBuf,
    /// The folder of its manifests.
    pub(super) manifests: PathBuf,
}

/// Builds the binaries with the kernel programs embedded.
pub(super) fn build() -> Result<Guest> {
    let built = freestanding::build(&["proxy-agent", "vm-init"], Profile::Dev)?;
    let manifests = fs::canonicalize(workspace::path("xtask/vm-init/manifests"))?;
    Ok(Guest { agent: built.join("sidestep"), init: built.join("vm-init"), manifests })
}
