//! `cargo doc` with warnings as errors, so that no link in a doc comment is broken, between private items either.

use anyhow::Result;

use crate::{process, workspace};

/// Documents the host's crates, private items included.
pub(super) fn check() -> Result<()> {
    let mut command = workspace::cargo();
    command.args(["doc", "--no-deps", "--document-private-items", "--quiet"]);
    // These pages are not published; their readers work on the private items, too.
    let flags = ["-Dwarnings", "-Arustdoc::private_intra_doc_links"];
    process::run(command.env("CARGO_ENCODED_RUSTDOCFLAGS", flags.join("\u{1f}")))
}
