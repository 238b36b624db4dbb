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

/// Like [`build`], and also builds these binaries of other crates.
///
/// No task selects packages (`--package`): cargo unifies features over the selected packages, so each selection would
/// rebuild the agent's library with other features. With `--bin` alone, all tasks build the workspace's default members
/// and share the build cache.
pub(crate) fn build_with(profile: Profile, others: &[&str]) -> Result<PathBuf> {
    let mut command = workspace::cargo();
    command.arg("build");
    for binary in std::iter::once(&"sidestep").chain(others) {
        command.args(["--bin", binary]);
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
