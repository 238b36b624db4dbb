//! Installs packages, or lists exactly which are missing.

use std::process::Command;

use anyhow::{Result, bail};

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
