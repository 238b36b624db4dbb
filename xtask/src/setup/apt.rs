//! Installs packages, or lists exactly which are missing.

use std::process::Command;

use anyhow::{Result, bail};

use super::packages::Package;
use crate::{process, progress, workspace};

/// Installs `packages` in one call of the package manager; without root or apt, says what to install instead.
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
        // Lists of an ordinary machine are usually good enough; a new one has none, and old ones name files that
        // are gone: then, and only then, they are fetched.
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
    let mut text = format!("missing, and installed by itself only as root and with apt:\n{rows}\n");
    let names: Vec<&str> = packages.iter().map(|package| package.name).collect();
    text += "On Debian:\n  sudo apt-get update && sudo apt-get install --yes --no-install-recommends ";
    text += &names.join(" ");
    if names.contains(&"rust-web-src") {
        text += "\nInstead of rustc-web and rust-web-src, where rustup is: rustup component add rust-src\n";
        text += "Instead of llvm-22-dev: bpf-linker 0.13.0 from its releases, on the path\n";
        text += "  (https://github.com/aya-rs/bpf-linker/releases)";
    }
    text + "\nThen run the same command again."
}
