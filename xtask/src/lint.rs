//! `cargo xtask lint`: formatting, the order of modules, clippy and rustdoc, warnings being errors; and what dependencies
//! may be.

mod dependencies;
mod documentation;

use anyhow::Result;

use crate::build::kernel;
use crate::setup::{self, Need};
use crate::{process, structure, workspace};

/// Checks the format, which modules name which, then the host's crates and the kernel programs, then the documentation.
pub(crate) fn run() -> Result<()> {
    setup::ensure(&[Need::KernelBuild])?;
    process::run(workspace::cargo().args(["fmt", "--all", "--check"]))?;
    structure::check()?;
    // The agent embeds the object, so that even a check of it needs one.
    kernel::build()?;
    process::run(workspace::cargo().args(["clippy", "--all-targets", "--", "--deny", "warnings"]))?;
    kernel_programs()?;
    documentation::check()?;
    dependencies::check()
}

/// The kernel programs are linted for the host's target: the distribution's compiler has no clippy, and another
/// compiler's clippy cannot build its library source. What is linted is the same but for integer widths, which
/// are the same on both.
fn kernel_programs() -> Result<()> {
    let mut command = workspace::cargo();
    command.args(["clippy", "--package", "proxy-ebpf", "--bins", "--target-dir"]);
    command.arg(workspace::path("target/ebpf-lint")).args(["--", "--deny", "warnings"]);
    // Like the kernel's target, which has no unwinding; and with the same unstable features.
    command.env("CARGO_ENCODED_RUSTFLAGS", "-Cpanic=abort").env("RUSTC_BOOTSTRAP", "1");
    process::run(&mut command)
}
