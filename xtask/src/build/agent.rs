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

/// The same, with these binaries of other crates.
///
/// No task names packages: cargo turns on what the named ones ask of their dependencies, so that each task would have
/// the agent's library built once more, with features of its own. Named by binary alone, all tasks build in the
/// workspace's default members, and what one has built the next one finds.
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
