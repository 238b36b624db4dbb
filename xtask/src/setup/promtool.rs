//! promtool and Prometheus, which read the rules and the dashboard in the tests: the machine's own, or Debian's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::Archive;
use crate::{process, progress, workspace};

/// The suite to take the package from. Its programs need no library but a libc that later suites have too.
const SUITE: &str = "bookworm";

/// The folder with both programs, if they are to be had; where not, tests that need them skip.
pub(crate) fn find() -> Option<PathBuf> {
    let fetched = workspace::target("setup/prometheus");
    let programs = fetched.join("root/usr/bin");
    let installed = which::which("promtool").ok().and_then(|program| Some(program.parent()?.to_owned()));
    for candidate in installed.into_iter().chain([programs.clone()]) {
        if works(&candidate).is_ok() {
            return Some(candidate);
        }
    }
    match progress::step(&format!("promtool, Prometheus: package from {SUITE}"), || {
        fetch(&fetched, &programs)
    }) {
        Ok(()) => Some(programs),
        Err(error) => {
            eprintln!("no promtool, so what needs it is skipped: {error:#}");
            None
        }
    }
}

fn fetch(folder: &Path, programs: &Path) -> Result<()> {
    let archive = Archive::open(&folder.join("apt"), &[SUITE])?;
    let deb = archive.download("prometheus", &folder.join("debs"))?;
    // Unpacked and not installed: the package would start a server.
    process::output(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(folder.join("root")))?;
    fs::remove_file(&deb).with_context(|| format!("cannot remove {}", deb.display()))?;
    works(programs)
}

fn works(programs: &Path) -> Result<()> {
    for program in ["promtool", "prometheus"] {
        process::output(Command::new(programs.join(program)).arg("--version"))?;
    }
    Ok(())
}
