//! Finds a Rust compiler that can build the kernel programs: one with its library's source.
//!
//! The target `bpfel-unknown-none` has no prebuilt `core`, so the source must be there. Which channel the compiler
//! is from does not matter: `RUSTC_BOOTSTRAP=1`, set on that one child process, lets a stable one build it.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process;

/// The oldest minor version that builds the workspace; the same as `rust-version` in Cargo.toml.
const OLDEST_MINOR: u32 = 95;

/// A compiler with its library source.
pub(crate) struct Compiler {
    /// The compiler itself, never rustup's proxy.
    pub(crate) rustc: PathBuf,
    /// The cargo to run it with.
    pub(crate) cargo: PathBuf,
    /// The major version of its LLVM: bpf-linker's must be at least this.
    pub(crate) llvm: u32,
    version: String,
}

impl fmt::Display for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (LLVM {}, {})", self.version, self.llvm, self.rustc.display())
    }
}

/// The first usable compiler: the active one, then rustup's other toolchains, then the distribution's.
pub(crate) fn find() -> Result<Compiler> {
    let mut candidates =
        active().into_iter().chain(rustup_toolchains()).chain([PathBuf::from("/usr/bin/rustc")]);
    candidates.find_map(|rustc| inspect(&rustc)).context(
        "found no Rust compiler with its library source; run `cargo xtask setup` as root, or \
         `rustup component add rust-src`",
    )
}

/// Whether rustup is installed, which can add the source.
pub(super) fn rustup_may_add_source() -> bool {
    which::which("rustup").is_ok()
}

/// Adds the library source to rustup's active toolchain.
pub(super) fn add_source_with_rustup() -> Result<()> {
    // Behind a firewall that drops packets rustup would wait for minutes; the distribution's compiler takes one.
    let mut command = Command::new("timeout");
    command.args(["60", "rustup", "component", "add", "rust-src"]).env("RUSTUP_MAX_RETRIES", "0");
    process::output(&mut command).map(drop)
}

/// The compiler, if it has its source and is new enough.
fn inspect(rustc: &Path) -> Option<Compiler> {
    let sysroot = process::output(Command::new(rustc).args(["--print", "sysroot"])).ok()?;
    let sysroot = Path::new(sysroot.trim());
    if !sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml").exists() {
        return None;
    }
    let about = process::output(Command::new(rustc).arg("-vV")).ok()?;
    let field = |name: &str| about.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let minor: u32 = field("release:")?.split('.').nth(1)?.parse().ok()?;
    let llvm = field("LLVM version:")?.split('.').next()?.parse().ok()?;
    let version = about.lines().next()?.split(" (").next()?.to_owned();
    (minor >= OLDEST_MINOR).then(|| Compiler { rustc: rustc.into(), cargo: cargo_for(rustc), llvm, version })
}

/// The toolchain's own cargo under rustup; elsewhere the cargo that runs this task, never an older one beside rustc.
fn cargo_for(rustc: &Path) -> PathBuf {
    let own = rustc.with_file_name("cargo");
    let in_rustup = rustup_home().is_some_and(|home| rustc.starts_with(home));
    if in_rustup && own.exists() { own } else { super::cargo() }
}

/// The compiler behind plain `rustc`.
fn active() -> Option<PathBuf> {
    let sysroot = process::output(Command::new("rustc").args(["--print", "sysroot"])).ok()?;
    Some(Path::new(sysroot.trim()).join("bin/rustc"))
}

fn rustup_home() -> Option<PathBuf> {
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".rustup"));
    std::env::var_os("RUSTUP_HOME").map(PathBuf::from).or_else(home)
}

fn rustup_toolchains() -> Vec<PathBuf> {
    let Some(entries) = rustup_home().and_then(|home| fs::read_dir(home.join("toolchains")).ok()) else {
        return Vec::new();
    };
    let mut toolchains: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path().join("bin/rustc")).collect();
    toolchains.sort();
    toolchains
}
