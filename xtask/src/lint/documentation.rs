//! `cargo doc`, warnings being errors: links in doc comments lead to something, also between private items.

use anyhow::Result;

use crate::{process, workspace};

/// Documents the host's crates, private items included.
pub(super) fn check() -> Result<()> {
    let mut command = workspace::cargo();
    command.args(["doc", "--no-deps", "--document-private-items", "--quiet"]);
    process::run(command.env("CARGO_ENCODED_RUSTDOCFLAGS", "-Dwarnings"))
}
