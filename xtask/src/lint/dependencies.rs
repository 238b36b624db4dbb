//! What the dependencies may be: `deny.toml`, judged by cargo-deny where it is installed.
//!
//! It is not installed for this: it takes minutes to build, and the rules seldom have anything to say. Its advisories are
//! left out, as they need a download.

use anyhow::Result;

use crate::{process, workspace};

/// Checks licences, banned crates and sources, or says that it did not.
pub(super) fn check() -> Result<()> {
    if which::which("cargo-deny").is_err() {
        println!(
            "skipped: licences and sources of dependencies (`cargo install cargo-deny` to have them checked)"
        );
        return Ok(());
    }
    process::run(workspace::cargo().args(["deny", "--offline", "check", "licenses", "bans", "sources"]))
}
