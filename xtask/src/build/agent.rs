//! The `sidestep` binary.

use std::path::PathBuf;

use anyhow::Result;

use crate::{process, workspace};

/// Cargo's profiles that the tasks use.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Quick to build: what tests run.
    Dev,
    /// What users run, and what is measured.
    Release,
}

/// Builds the agent around the kernel programs that [`super::kernel::build`] left, and returns its path.
pub(crate) fn build(profile: Profile) -> Result<PathBuf> {
    build_with(profile, &[])
}

/// The same, with the binaries `(package, binary)` of other crates, in one call of cargo: in a call of its own, a crate
/// that asks for other features of a dependency would have the agent's library built once more.
pub(crate) fn build_with(profile: Profile, others: &[(&str, &str)]) -> Result<PathBuf> {
    let mut command = workspace::cargo();
    command.arg("build");
    for (package, binary) in [("proxy-agent", "sidestep")].iter().chain(others) {
        command.args(["--package", package, "--bin", binary]);
    }
    let folder = match profile {
        Profile::Dev => "debug",
        Profile::Release => {
            command.arg("--release");
            "release"
        }
    };
    process::run(&mut command)?;
    Ok(workspace::target(folder).join("sidestep"))
}
