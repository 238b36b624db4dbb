//! The machine's programs: the agent, the first process and the scenarios, as static binaries.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::scenarios;
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
    /// The scenarios' binaries by name.
    pub(super) tests: BTreeMap<&'static str, PathBuf>,
}

/// Builds the binaries with the kernel programs embedded.
pub(super) fn build() -> Result<Guest> {
    // Each scenario starts an agent, and the processor is emulated. The image has the same binary.
    let agent = freestanding::build(&["proxy-agent"], Profile::Release)?.join("sidestep");
    let init = freestanding::build(&["vm-init"], Profile::Dev)?.join("vm-init");
    let mut found = freestanding::tests("sidestep-tests", &scenarios::binaries())?;
    let tests = scenarios::binaries().into_iter().map(|name| {
        Ok((name, found.remove(name).with_context(|| format!("cargo built no test binary `{name}`"))?))
    });
    let manifests = fs::canonicalize(workspace::path("xtask/vm-init/manifests"))?;
    let tests = tests.collect::<Result<_>>()?;
    Ok(Guest { agent, init, manifests, tests })
}
