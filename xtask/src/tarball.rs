//! Reproducible entries of tar archives: owned by root, with a time stamp of 0.

use std::io::Write;

use anyhow::Result;
use tar::{Builder, EntryType, Header};

/// Adds a folder.
pub(crate) fn folder(tar: &mut Builder<impl Write>, path: &str) -> Result<()> {
    let mut header = header(EntryType::Directory, 0o755, 0);
    Ok(tar.append_data(&mut header, path, std::io::empty())?)
}

/// Adds a file.
pub(crate) fn file(tar: &mut Builder<impl Write>, path: &str, mode: u32, bytes: &[u8]) -> Result<()> {
    let mut header = header(EntryType::Regular, mode, bytes.len() as u64);
    Ok(tar.append_data(&mut header, path, bytes)?)
}

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
