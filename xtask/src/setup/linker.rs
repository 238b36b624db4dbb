//! bpf-linker: an installed one that fits the compiler, or a new one on an LLVM not older than the compiler's.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::packages::{self, Package};
use super::{Compiler, probe};
use crate::{process, progress, workspace};

/// The version that set-up installs.
const VERSION: &str = "0.13.0";
/// The LLVM versions that this version can be built on.
const LLVM_VERSIONS: std::ops::RangeInclusive<u32> = 21..=23;

/// The linker that fits `compiler`.
pub(super) fn find(compiler: &Compiler) -> Result<PathBuf> {
    let mut refusal = None;
    for linker in candidates() {
        match probe::link(compiler, &linker) {
            Ok(()) => return Ok(linker),
            Err(error) => refusal = Some(error),
        }
    }
    Err(refusal.unwrap_or_else(|| anyhow::anyhow!("bpf-linker is not installed; run `cargo xtask setup`")))
}

/// The packages that [`ensure`] needs to build a linker: none where a linker or an LLVM fits.
pub(super) fn packages(compiler: &Compiler) -> Result<Vec<Package>> {
    if find(compiler).is_ok() || installed_llvm(compiler).is_some() || which::which("cargo-binstall").is_ok()
    {
        return Ok(Vec::new());
    }
    let newest_package = 22;
    anyhow::ensure!(
        compiler.llvm <= newest_package,
        "{compiler} needs a bpf-linker with LLVM {} or later; put one from \
         https://github.com/aya-rs/bpf-linker/releases into a folder on PATH",
        compiler.llvm
    );
    Ok(packages::missing(&[packages::LLVM_22]))
}

/// Builds and installs a linker unless an installed one fits.
pub(super) fn ensure(compiler: &Compiler) -> Result<()> {
    if find(compiler).is_ok() {
        return Ok(());
    }
    let what = format!("install bpf-linker {VERSION}, which links the kernel programs (about a minute)");
    progress::step(&what, || {
        process::run_logged(&mut install(compiler)?, &workspace::target("setup/bpf-linker.log"))
    })?;
    find(compiler).map(drop)
}

/// The command that installs a linker for `compiler`.
fn install(compiler: &Compiler) -> Result<Command> {
    let mut command = Command::new(super::cargo());
    if let Some((version, prefix)) = installed_llvm(compiler) {
        command.args(["install", "bpf-linker", "--version", VERSION, "--force", "--no-default-features"]);
        command.arg(format!("--features=llvm-{version}")).env("LLVM_PREFIX", prefix);
    } else {
        which::which("cargo-binstall")
            .context("bpf-linker needs an installed LLVM (llvm-22-dev) or cargo-binstall")?;
        command.args(["binstall", "--no-confirm", "--force", &format!("bpf-linker@{VERSION}")]);
    }
    Ok(command)
}

/// The oldest installed LLVM that reads the compiler's bitcode, with its folder.
fn installed_llvm(compiler: &Compiler) -> Option<(u32, PathBuf)> {
    let fits = LLVM_VERSIONS.filter(|version| *version >= compiler.llvm);
    fits.map(|version| (version, PathBuf::from(format!("/usr/lib/llvm-{version}"))))
        .find(|(_, prefix)| prefix.join("bin/llvm-config").exists())
}

/// Linkers on PATH, then in cargo's folder of binaries (which is not always on PATH).
fn candidates() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = which::which_all("bpf-linker").into_iter().flatten().collect();
    let cargo_home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = || Some(Path::new(&std::env::var_os("HOME")?).join(".cargo"));
    found.extend(
        cargo_home.or_else(home).map(|home| home.join("bin/bpf-linker")).filter(|path| path.exists()),
    );
    found.dedup();
    found
}
