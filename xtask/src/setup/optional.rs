//! Programs that only some tests need: the machine's own, else one that is fetched. Without one, these tests skip.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::Archive;
use crate::{process, progress};

/// A program, or a folder of some.
pub(super) struct Optional<'a> {
    /// What people call it.
    pub(super) name: &'a str,
    /// Where it is fetched from.
    pub(super) origin: String,
    /// The machine's own.
    pub(super) installed: Option<PathBuf>,
    /// Where it is after [`Self::find`] has fetched it.
    pub(super) fetched: PathBuf,
    /// Whether it does what it is for.
    pub(super) works: fn(&Path) -> Result<()>,
}

impl Optional<'_> {
    /// The first one that works; fetches it if there is none.
    pub(super) fn find(self, fetch: impl FnOnce(&Path) -> Result<()>) -> Option<PathBuf> {
        let Self { name, origin, installed, fetched, works } = self;
        if let Some(found) = installed.into_iter().chain([fetched.clone()]).find(|path| works(path).is_ok()) {
            return Some(found);
        }
        let step = progress::step(&format!("{name}: {origin}"), || {
            fetch(&fetched)?;
            works(&fetched)
        });
        match step {
            Ok(()) => Some(fetched),
            Err(error) => {
                eprintln!("no {name}, so what needs it is skipped: {error:#}");
                None
            }
        }
    }
}

/// Unpacks a package of a Debian suite below `folder`/root. Nothing is installed: no other package has to change for it, it
/// starts no server, and no privilege is needed.
pub(super) fn unpack(package: &str, suite: &str, folder: &Path) -> Result<()> {
    let archive = Archive::open(&folder.join("apt"), &[suite])?;
    let deb = archive.download(package, &folder.join("debs"))?;
    process::output(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(folder.join("root")))?;
    fs::remove_file(&deb).with_context(|| format!("cannot remove {}", deb.display()))
}
