//! The kernel programs: one object file with type information (BTF), at a path that does not change.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use object::{
    build::elf::{Builder, SectionData},
    elf,
};

use crate::{process, setup, workspace};

/// The kernel's target.
const TARGET: &str = "bpfel-unknown-none";

/// Where `proxy-agent/build.rs` looks for the object. No task sets `SIDESTEP_EBPF_OBJECT`, which overrides this path:
/// cargo rebuilds the agent whenever the variable changes from one call to the next.
pub(crate) fn object() -> PathBuf {
    workspace::path("target/ebpf/sidestep.bpf.o")
}

/// Builds `proxy-ebpf` and returns the object's path; the file changes only when its content does.
pub(crate) fn build() -> Result<PathBuf> {
    let folder = workspace::path("target/ebpf");
    process::run(cargo("build")?.arg("--target-dir").arg(&folder))?;
    keep(&folder, object())
}

/// Builds the programs against which the benchmark compares the shipped ones, in a folder of their own.
pub(crate) fn build_bench() -> Result<PathBuf> {
    let folder = workspace::path("target/ebpf-bench");
    process::run(cargo("build")?.args(["--features", "bench"]).arg("--target-dir").arg(&folder))?;
    keep(&folder, workspace::path("target/ebpf/sidestep-bench.bpf.o"))
}

/// Copies what cargo left in `folder` to `object` without what only debuggers read, unless it is the same.
fn keep(folder: &Path, object: PathBuf) -> Result<PathBuf> {
    let built = folder.join(TARGET).join("release/proxy-ebpf");
    let bytes = fs::read(&built)
        .with_context(|| format!("cannot read {}, which cargo should have built", built.display()))?;
    let bytes = without_dwarf(&bytes).with_context(|| format!("{} is no object file", built.display()))?;
    if fs::read(&object).ok().as_ref() != Some(&bytes) {
        fs::write(&object, &bytes).with_context(|| format!("cannot write {}", object.display()))?;
    }
    Ok(object)
}

/// The object without the sections from which bpf-linker made BTF: four fifths of it, which each agent would have in
/// memory.
fn without_dwarf(object: &[u8]) -> Result<Vec<u8>> {
    let mut builder = Builder::read(object)?;
    for section in &mut builder.sections {
        let name = section.name.as_slice();
        section.delete = name.starts_with(b".debug_") || name.starts_with(b".rel.debug_");
    }
    builder.delete_orphans();
    // LLVM has one table for the names of symbols and sections.
    let names = builder.sections.add();
    names.name = b".shstrtab"[..].into();
    names.sh_type = elf::SHT_STRTAB;
    names.data = SectionData::SectionString;
    let mut stripped = Vec::new();
    builder.write(&mut stripped)?;
    Ok(stripped)
}

/// A cargo subcommand on `proxy-ebpf` for the kernel's target.
fn cargo(subcommand: &str) -> Result<Command> {
    let toolchain = setup::kernel_toolchain()?;
    let mut command = Command::new(&toolchain.compiler.cargo);
    command.current_dir(workspace::root()).args([subcommand, "--package", "proxy-ebpf", "--release"]);
    command.args(["--target", TARGET, "-Z", "build-std=core"]);
    let flags = [
        format!("-Clinker={}", toolchain.linker.display()),
        // Line and type information; from it bpf-linker makes BTF, which names map fields for bpftool.
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
    ];
    command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    command.env("RUSTC", &toolchain.compiler.rustc);
    // Set on this child only: in the environment of host builds it would enable unstable features there, too.
    command.env("RUSTC_BOOTSTRAP", "1");
    for wrapper in ["RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "RUSTUP_TOOLCHAIN", "CARGO_TARGET_DIR"] {
        command.env_remove(wrapper);
    }
    Ok(command)
}
