//! The rules for dependencies in `deny.toml`, checked by cargo-deny where it is installed.
//!
//! Set-up does not install cargo-deny: it takes minutes to build, and seldom finds anything. Advisories are left out,
//! as they need a download.

use anyhow::Result;

use crate::{process, workspace};

/// Checks licences, banned crates and sources, or prints that cargo-deny is missing.
pub(super) fn check() -> Result<()> {
    if which::which("cargo-deny").is_err() {
        println!(
            "skipped: licences and sources of dependencies (`cargo install cargo-deny` to have them checked)"
        );
        return Ok(());
    }
    process::run(workspace::cargo().args(["deny", "--offline", "check", "licenses", "bans", "sources"]))
}
