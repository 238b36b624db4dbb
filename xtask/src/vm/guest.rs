//! What runs in the machine: the agent and the first process, as static binaries.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::{process, setup, workspace};

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The binaries of the machine.
pub(super) struct Guest {
    /// `sidestep`.
    pub(super) agent: PathBuf,
    /// The first process.
    pub(super) init: PathBuf,
    /// The folder of its manifests.
    pub(super) manifests: PathBuf,
}

/// Builds them around the kernel programs in `object`.
pub(super) fn build(object: &Path) -> Result<Guest> {
    let folder = workspace::target("vm/build");
    let mut command = Command::new(setup::cargo());
    command.current_dir(workspace::root()).args(["build", "--target", TARGET]);
    command.args(["--package", "proxy-agent", "--package", "vm-init", "--bins", "--target-dir"]).arg(&folder);
    // No libraries in the initramfs; and every byte of it is memory of the machine.
    command.env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static\u{1f}-Cstrip=symbols");
    // Minutes of optimization would save a second of emulation.
    command.env("CARGO_PROFILE_DEV_DEBUG", "0").env("SIDESTEP_EBPF_OBJECT", object);
    process::run(&mut command)?;
    let built = folder.join(TARGET).join("debug");
    let manifests = fs::canonicalize(workspace::path("xtask/vm-init/manifests"))?;
    Ok(Guest { agent: built.join("sidestep"), init: built.join("vm-init"), manifests })
}
