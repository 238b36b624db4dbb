//! Installs packages or lists exactly which are missing, and downloads packages without installing them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::packages::Package;
use crate::{process, progress, workspace};

/// Installs `packages` in one call of apt; without root or apt, an error says what to install.
pub(super) fn install(packages: &[Package]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    if which::which("apt-get").is_err() || !nix::unistd::geteuid().is_root() {
        bail!(instructions(packages));
    }
    for package in packages {
        eprintln!("  need {}: {}", package.name, package.why);
    }
    let names: Vec<&str> = packages.iter().map(|package| package.name).collect();
    let what = format!("apt-get install {}", names.join(" "));
    progress::step(&what, || {
        // Most machines have package lists. A new one has none, and old lists name files that are gone; only if
        // the installation fails, fetch the lists and try again.
        let log = workspace::target("setup/apt.log");
        process::run_logged(&mut apt_install(&names), &log).or_else(|_| {
            process::run_logged(apt().arg("update"), &log)?;
            process::run_logged(&mut apt_install(&names), &log)
        })
    })
}

/// Downloads `packages` and what they depend on, as far as it is not installed, and returns the files.
pub(super) fn download(packages: &[Package], cache: &Path) -> Result<Vec<PathBuf>> {
    let archives = cache.join("archives");
    fs::create_dir_all(archives.join("partial"))
        .with_context(|| format!("cannot create {}", archives.display()))?;
    let log = workspace::target("setup/apt.log");
    let names: Vec<&str> = packages.iter().map(|package| package.name).collect();
    let fetch = |names: &[&str]| process::run_logged(&mut apt_download(cache, names), &log);
    if fetch(&names).is_err() {
        // Lists are absent or old; without root they stay so. One by one, a package that the distribution does not have
        // is no obstacle to others.
        let _ = process::run_logged(apt().arg("update"), &log);
        let failed: Vec<anyhow::Error> = names.iter().filter_map(|name| fetch(&[name]).err()).collect();
        if failed.len() == names.len()
            && let Some(error) = failed.into_iter().next()
        {
            return Err(error);
        }
    }
    let files = fs::read_dir(&archives).with_context(|| format!("cannot read {}", archives.display()))?;
    let files = files.flatten().map(|file| file.path());
    Ok(files.filter(|file| file.extension().is_some_and(|extension| extension == "deb")).collect())
}

/// apt with a cache of its own, and without the locks of an installation.
fn apt_download(cache: &Path, names: &[&str]) -> Command {
    let mut command = apt_install(names);
    command.arg("--download-only").arg("-o").arg(format!("Dir::Cache={}", cache.display()));
    command.args(["-o", "Debug::NoLocking=true", "-o", "APT::Sandbox::User="]);
    command
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").args(["-o", "DPkg::Lock::Timeout=120"]);
    command
}

fn apt_install(names: &[&str]) -> Command {
    let mut command = apt();
    command.args(["install", "--yes", "--no-install-recommends"]).args(names);
    command
}

fn instructions(packages: &[Package]) -> String {
    let rows = packages.iter().map(|package| format!("  {:<18}{}", package.name, package.why));
    let rows = rows.collect::<Vec<_>>().join("\n");
    let mut text = format!("these packages are missing, and installing them needs root and apt:\n{rows}\n");
    let names: Vec<&str> = packages.iter().map(|package| package.name).collect();
    text += "On Debian:\n  sudo apt-get update && sudo apt-get install --yes --no-install-recommends ";
    text += &names.join(" ");
    if names.contains(&"rust-web-src") {
        text += "\nWith rustup, instead of rustc-web and rust-web-src: rustup component add rust-src\n";
        text += "Instead of llvm-22-dev: bpf-linker 0.13.0 from its releases, in a folder on PATH\n";
        text += "  (https://github.com/aya-rs/bpf-linker/releases)";
    }
    text + "\nThen run the same command again."
}
