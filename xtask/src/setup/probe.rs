//! Tests whether a linker understands a compiler's output, by linking a minimal crate.
//!
//! bpf-linker does not print which LLVM it has, and an older one than the compiler's fails late in a build, with a
//! message about bitcode. Linking a crate without `core` takes a tenth of a second and shows it at once.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::Compiler;
use crate::{process, workspace};

/// The crate: one function, and the language items that a function needs.
const SOURCE: &str = r#"
#![feature(no_core, lang_items)]
#![no_core]
#![crate_type = "cdylib"]
#![expect(internal_features)]
#[lang = "pointee_sized"] pub trait PointeeSized {}
#[lang = "meta_sized"] pub trait MetaSized: PointeeSized {}
#[lang = "sized"] pub trait Sized: MetaSized {}
#[unsafe(no_mangle)] pub extern "C" fn probe() {}
"#;

/// Links the probe with `linker`.
pub(super) fn link(compiler: &Compiler, linker: &Path) -> Result<()> {
    let folder = workspace::target("setup");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let source = folder.join("probe.rs");
    fs::write(&source, SOURCE).with_context(|| format!("cannot write {}", source.display()))?;
    let mut command = Command::new(&compiler.rustc);
    command.env("RUSTC_BOOTSTRAP", "1");
    command.args(["--target", "bpfel-unknown-none", "--edition", "2024", "-Cdebuginfo=2"]);
    command.args(["-Clink-arg=--btf", &format!("-Clinker={}", linker.display())]);
    command.arg(&source).arg("-o").arg(folder.join("probe.o"));
    process::output(&mut command).map(drop).with_context(|| {
        format!(
            "{} cannot link the output of {}; install a bpf-linker with LLVM {} or later",
            linker.display(),
            compiler,
            compiler.llvm
        )
    })
}
