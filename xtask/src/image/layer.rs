//! The image's only layer: the binary, and the folders on which a runtime mounts.

use std::io::Write;

use anyhow::Result;
use tar::{Builder, EntryType, Header};

/// Where the binary is.
pub(super) const BINARY: &str = "usr/bin/sidestep";

/// The layer with `binary` as an uncompressed tar: its digest then depends on no compressor's version.
pub(super) fn build(binary: &[u8]) -> Result<Vec<u8>> {
    let mut tar = Builder::new(Vec::new());
    for folder in ["dev/", "proc/", "run/", "sys/", "usr/", "usr/bin/"] {
        folder_entry(&mut tar, folder)?;
    }
    file(&mut tar, BINARY, 0o755, binary)?;
    Ok(tar.into_inner()?)
}

/// Adds a folder.
pub(super) fn folder_entry(tar: &mut Builder<impl Write>, path: &str) -> Result<()> {
    let mut header = header(EntryType::Directory, 0o755, 0);
    Ok(tar.append_data(&mut header, path, std::io::empty())?)
}

/// Adds a file.
pub(super) fn file(tar: &mut Builder<impl Write>, path: &str, mode: u32, bytes: &[u8]) -> Result<()> {
    let mut header = header(EntryType::Regular, mode, bytes.len() as u64);
    Ok(tar.append_data(&mut header, path, bytes)?)
}

/// The same for everybody: root's, and as old as time.
fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}
