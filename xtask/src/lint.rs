//! `cargo xtask lint`: formatting, the order of modules, clippy and rustdoc, with warnings as errors; and the rules for
//! dependencies.

mod dependencies;
mod documentation;

use anyhow::Result;

use crate::build::kernel;
use crate::setup::{self, Need};
use crate::{process, structure, workspace};

/// Checks formatting, the order of modules, the host's crates, the kernel programs, then the documentation.
pub(crate) fn run() -> Result<()> {
    setup::ensure(&[Need::KernelBuild])?;
    process::run(workspace::cargo().args(["fmt", "--all", "--check"]))?;
    structure::check()?;
    // The agent embeds the object, so even `cargo check` needs one.
    kernel::build()?;
    process::run(workspace::cargo().args(["clippy", "--all-targets", "--", "--deny", "warnings"]))?;
    kernel_programs()?;
    documentation::check()?;
    dependencies::check()
}

/// Lints the kernel programs for the host's target: the distribution's compiler has no clippy, and another compiler's
/// clippy cannot build its library source. Integers have the same width on both targets, so the findings are the same.
fn kernel_programs() -> Result<()> {
    let mut command = workspace::cargo();
    command.args(["clippy", "--package", "proxy-ebpf", "--bins", "--target-dir"]);
    command.arg(workspace::path("target/ebpf-lint")).args(["--", "--deny", "warnings"]);
    // Like the kernel's target, which has no unwinding; and with the same unstable features.
    command.env("CARGO_ENCODED_RUSTFLAGS", "-Cpanic=abort").env("RUSTC_BOOTSTRAP", "1");
    process::run(&mut command)
}
