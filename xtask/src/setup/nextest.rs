//! cargo-nextest.

use std::process::Command;

use anyhow::Result;

use crate::{process, progress, workspace};

/// Installs cargo-nextest unless cargo knows it.
pub(super) fn ensure() -> Result<()> {
    let known = process::output(Command::new(super::cargo()).args(["nextest", "--version"]));
    if known.is_ok() {
        return Ok(());
    }
    progress::step("install cargo-nextest, which runs each test in its own process (some minutes)", || {
        let mut command = Command::new(super::cargo());
        command.args(["install", "--locked", "cargo-nextest", "--no-default-features"]);
        // It only starts processes and waits; self-updates and optimization are not worth minutes of building.
        command.args(["--features", "default-no-update"]).env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0");
        process::run_logged(&mut command, &workspace::target("setup/nextest.log"))
    })
}
