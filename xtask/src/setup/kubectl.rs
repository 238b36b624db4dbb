//! kubectl, which renders `deploy/` for the tests: the machine's own where it is new enough, else Debian's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::Archive;
use crate::{process, progress, workspace};

/// The oldest major version of kustomize that knows `labels` with `pairs`.
const OLDEST_KUSTOMIZE: u64 = 4;
/// The suite to take it from. Its program needs no library but a libc that older suites have too; their own is
/// too old for a kustomization of today.
const SUITE: &str = "trixie";

/// A kubectl that can render, if there is one to be had; where not, tests that need it skip.
pub(crate) fn find() -> Option<PathBuf> {
    let fetched = workspace::target("setup/kubectl");
    let program = fetched.join("root/usr/bin/kubectl");
    for candidate in [PathBuf::from("kubectl"), program.clone()] {
        if renders(&candidate).is_ok() {
            return Some(candidate);
        }
    }
    match progress::step(&format!("kubectl: package from {SUITE}"), || fetch(&fetched, &program)) {
        Ok(()) => Some(program),
        Err(error) => {
            eprintln!("no kubectl, so what needs it is skipped: {error:#}");
            None
        }
    }
}

fn fetch(folder: &Path, program: &Path) -> Result<()> {
    let archive = Archive::open(&folder.join("apt"), &[SUITE])?;
    let deb = archive.download("kubectl", &folder.join("debs"))?;
    // Unpacked and not installed: no other package has to change for it, and no privilege is needed.
    process::output(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(folder.join("root")))?;
    fs::remove_file(&deb).with_context(|| format!("cannot remove {}", deb.display()))?;
    renders(program)
}

fn renders(program: &Path) -> Result<()> {
    let version = process::output(Command::new(program).args(["version", "--client", "--output", "json"]))?;
    let version: Value = serde_json::from_str(&version)?;
    // "v5.5.0"; before 1.21 there is none.
    let kustomize = version["kustomizeVersion"].as_str().unwrap_or_default();
    let major = kustomize.trim_start_matches('v').split('.').next().and_then(|major| major.parse().ok());
    ensure!(
        major.unwrap_or(0_u64) >= OLDEST_KUSTOMIZE,
        "{}: its kustomize is {kustomize:?}",
        program.display()
    );
    Ok(())
}
