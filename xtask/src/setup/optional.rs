//! Programs that only some tests need: an installed one, else a fetched one. Without either, these tests skip.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::Archive;
use crate::{process, progress};

/// A program, or a folder of some.
pub(super) struct Optional<'a> {
    /// Its name in messages.
    pub(super) name: &'a str,
    /// Where to fetch it from, as progress lines name it.
    pub(super) origin: String,
    /// The installed one.
    pub(super) installed: Option<PathBuf>,
    /// Where [`Self::find`] puts a fetched one.
    pub(super) fetched: PathBuf,
    /// Checks that it does its job.
    pub(super) works: fn(&Path) -> Result<()>,
}

impl Optional<'_> {
    /// The first one that works; fetches it if there is none.
    pub(super) fn find(self, fetch: impl FnOnce(&Path) -> Result<()>) -> Option<PathBuf> {
        let Self { name, origin, installed, fetched, works } = self;
        if let Some(found) = installed.into_iter().chain([fetched.clone()]).find(|path| works(path).is_ok()) {
            return Some(found);
        }
        let step = progress::step(&format!("fetch {name} ({origin})"), || {
            fetch(&fetched)?;
            works(&fetched)
        });
        match step {
            Ok(()) => Some(fetched),
            Err(error) => {
                eprintln!("no {name}: tests that need it will skip ({error:#})");
                None
            }
        }
    }
}

/// Unpacks a package of a Debian suite below `folder`/root. Nothing is installed, so no other package changes, no
/// server starts, and no privileges are needed.
pub(super) fn unpack(package: &str, suite: &str, folder: &Path) -> Result<()> {
    let archive = Archive::open(&folder.join("apt"), &[suite])?;
    let deb = archive.download(package, &folder.join("debs"))?;
    extract(&deb, &folder.join("root"))?;
    fs::remove_file(&deb).with_context(|| format!("cannot remove {}", deb.display()))
}

/// Extracts the files of a package below `root`.
pub(super) fn extract(deb: &Path, root: &Path) -> Result<()> {
    process::output(Command::new("dpkg-deb").arg("-x").arg(deb).arg(root)).map(drop)
}
