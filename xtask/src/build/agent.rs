//! The `sidestep` binary.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::{process, setup, workspace};

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
    let mut command = Command::new(setup::cargo());
    command.current_dir(workspace::root()).args(["build", "--package", "proxy-agent", "--bin", "sidestep"]);
    // As the tests are built, so that neither build undoes the other's.
    command.env("SIDESTEP_EBPF_OBJECT", super::kernel::object());
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
