//! Builds the fuzzer, with everything in it counted: the agent, and the crates that decode for it.

use std::path::PathBuf;

use anyhow::Result;

use crate::build::{freestanding::TARGET, kernel};
use crate::{process, workspace};

/// What `cargo fuzz` passes with a nightly compiler, of which these are stable. An explicit `--target` keeps them away from
/// build scripts and macros.
const FLAGS: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "--cfg=fuzzing",
    "-Cdebug-assertions",
];

/// Builds it, and returns its path.
pub(super) fn fuzzer() -> Result<PathBuf> {
    // The agent embeds the object.
    kernel::build()?;
    let folder = workspace::target("fuzz");
    let mut command = workspace::cargo();
    command.args([
        "build",
        "--release",
        "--package",
        "sidestep-fuzz",
        "--features",
        "libfuzzer",
        "--bin",
        "fuzz",
    ]);
    command.args(["--target", TARGET]).arg("--target-dir").arg(&folder);
    command.env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}"));
    command.env("CARGO_PROFILE_RELEASE_DEBUG", "line-tables-only");
    command.env("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "true");
    process::run(&mut command)?;
    Ok(folder.join(TARGET).join("release/fuzz"))
}
