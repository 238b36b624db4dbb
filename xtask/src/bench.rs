//! `cargo xtask bench`: builds both objects and the benchmark in release, then replaces itself with the benchmark.

use std::{ffi::OsString, os::unix::process::CommandExt as _, process::Command};

use anyhow::{Context as _, Result};

use crate::{
    build::{agent, kernel},
    process,
    setup::{self, Need},
    workspace,
};

/// What to measure. Every argument after `bench` is passed to the benchmark, `--help` included.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    /// `connect`, `udp`, `nodeport`, `pods`, `sync`, `start` or `stale`, and the benchmark's own options: `-o json`, `--check`, `--quick`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Builds, then replaces this process by the benchmark.
pub(crate) fn run(args: &Args) -> Result<()> {
    setup::ensure(&[Need::KernelBuild, Need::Network])?;
    kernel::build()?;
    let comparisons = kernel::build_bench()?;
    let sidestep = agent::build_with(agent::Profile::Release, &["sidestep-bench"])?;
    let mut bench = Command::new(workspace::target("release/sidestep-bench"));
    bench.args(&args.arguments).env("SIDESTEP_BENCH_OBJECT", comparisons).env("SIDESTEP_BIN", sidestep);
    Err(bench.exec()).with_context(|| format!("cannot execute `{}`", process::line(&bench)))
}
