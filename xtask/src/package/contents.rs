//! Which files the package has, where and with which rights.

use std::fs;

use anyhow::{Context as _, Result};
use flate2::{Compression, GzBuilder};

use super::manuals::Manuals;
use crate::workspace;

/// A file of the package.
pub(super) struct File {
    /// Without a leading slash.
    pub(super) path: String,
    pub(super) mode: u32,
    pub(super) bytes: Vec<u8>,
    /// Whether it is a conffile: dpkg keeps the administrator's changes to it.
    pub(super) is_configuration: bool,
}

/// The package's contents.
pub(super) struct Contents {
    /// The files, sorted by path.
    pub(super) files: Vec<File>,
    /// The scripts that dpkg runs, by name.
    pub(super) scripts: Vec<(&'static str, Vec<u8>)>,
}

impl Contents {
    pub(super) fn new(binary: Vec<u8>, manuals: Manuals) -> Result<Self> {
        let mut files = vec![File { mode: 0o755, ..plain("usr/bin/sidestep", binary) }];
        for (path, source) in [
            ("usr/lib/systemd/system/sidestep.service", "deploy/debian/sidestep.service"),
            ("usr/share/doc/sidestep/copyright", "deploy/debian/copyright"),
        ] {
            files.push(plain(path, read(source)?));
        }
        let settings = plain("etc/default/sidestep", read("deploy/debian/default")?);
        files.push(File { is_configuration: true, ..settings });
        files.push(plain("usr/share/doc/sidestep/changelog.gz", compressed(&read("CHANGELOG.md")?)?));
        for (name, page) in manuals.pages {
            files.push(plain(&format!("usr/share/man/man1/{name}.gz"), compressed(&page)?));
        }
        for (path, text) in manuals.completions {
            files.push(plain(path, text));
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let scripts = ["postinst", "postrm", "prerm"];
        let scripts = scripts.map(|name| Ok((name, read(&format!("deploy/debian/{name}"))?)));
        Ok(Self { files, scripts: scripts.into_iter().collect::<Result<_>>()? })
    }
}

fn plain(path: &str, bytes: Vec<u8>) -> File {
    File { path: path.to_owned(), mode: 0o644, bytes, is_configuration: false }
}

fn read(source: &str) -> Result<Vec<u8>> {
    let path = workspace::path(source);
    fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// Compresses with gzip, without a time stamp or a name in the header.
pub(super) fn compressed(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut gzip = GzBuilder::new().write(Vec::new(), Compression::best());
    std::io::Write::write_all(&mut gzip, bytes)?;
    Ok(gzip.finish()?)
}
