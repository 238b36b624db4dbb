//! The image's only layer: the binary, and the directories that a runtime mounts over.
//!
//! It has no manual and no completions, because the image has neither a shell nor a pager; `sidestep man` and
//! `sidestep completions` write them.

use anyhow::Result;
use tar::Builder;

use crate::tarball;

/// Where the binary is.
pub(super) const BINARY: &str = "usr/bin/sidestep";

/// The layer with `binary` as an uncompressed tar: its digest then depends on no compressor's version.
pub(super) fn build(binary: &[u8]) -> Result<Vec<u8>> {
    let mut tar = Builder::new(Vec::new());
    for folder in ["dev/", "proc/", "run/", "sys/", "usr/", "usr/bin/"] {
        tarball::folder(&mut tar, folder)?;
    }
    tarball::file(&mut tar, BINARY, 0o755, binary)?;
    Ok(tar.into_inner()?)
}
