//! `cargo doc`, warnings being errors: links in doc comments lead to something, also between private items.

use anyhow::Result;

use crate::{process, workspace};

/// Documents the host's crates, private items included.
pub(super) fn check() -> Result<()> {
    let mut command = workspace::cargo();
    command.args(["doc", "--no-deps", "--document-private-items", "--quiet"]);
    // Nothing is published: who reads these pages reads the private items, too.
    let flags = ["-Dwarnings", "-Arustdoc::private_intra_doc_links"];
    process::run(command.env("CARGO_ENCODED_RUSTDOCFLAGS", flags.join("\u{1f}")))
}
