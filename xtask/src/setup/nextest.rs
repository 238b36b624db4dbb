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
    progress::step("cargo-nextest: runs each test in its own process (some minutes)", || {
        let mut command = Command::new(super::cargo());
        command.args(["install", "--locked", "cargo-nextest", "--no-default-features"]);
        // It starts processes and waits; neither updating itself nor running fast is worth the minutes.
        command.args(["--features", "default-no-update"]).env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0");
        process::run_logged(&mut command, &workspace::target("setup/nextest.log"))
    })
}
