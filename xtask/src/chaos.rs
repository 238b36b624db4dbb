//! `cargo xtask chaos`: builds the agent and the program in release, then replaces itself with it.

use std::{os::unix::process::CommandExt as _, path::PathBuf, process::Command};

use anyhow::{Context as _, Result};

use crate::{
    build::{agent, kernel},
    process,
    setup::{self, Need},
    workspace,
};

/// How long, how much, and with which versions.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Minutes of disturbances
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Begin all random choices here, to repeat a run: the same seed brings the same disturbances
    #[arg(long)]
    seed: Option<u64>,
    /// Long-lived connections
    #[arg(long, default_value_t = 2_000)]
    connections: usize,
    /// The most Services that come and go at a time
    #[arg(long, default_value_t = 6_000)]
    services: u32,
    /// Versions of the `sidestep` binary, among which nodes are upgraded and downgraded
    ///
    /// Without it, both nodes run what was built from this tree. The first one is what both begin with.
    #[arg(long, value_delimiter = ',')]
    binaries: Vec<PathBuf>,
}

/// Builds, then replaces this process by the program, which fails if a connection broke, failed or was misrouted.
pub(crate) fn run(args: &Args) -> Result<()> {
    if let Some(reason) = sidestep_tests::skip::missing() {
        anyhow::bail!("chaos cannot run: {reason}");
    }
    setup::ensure(&[Need::KernelBuild, Need::Network])?;
    kernel::build()?;
    let sidestep = agent::build_with(agent::Profile::Release, &["chaos"])?;
    let Args { minutes, seed, connections, services, binaries } = args;
    let mut chaos = Command::new(workspace::target("release/chaos"));
    chaos.arg(format!("--minutes={minutes}")).env("SIDESTEP_BIN", sidestep);
    chaos.args([format!("--connections={connections}"), format!("--services={services}")]);
    chaos.args(seed.map(|seed| format!("--seed={seed}")));
    for binary in binaries {
        let path = binary.canonicalize().with_context(|| binary.display().to_string())?;
        chaos.arg("--binaries").arg(path);
    }
    Err(chaos.exec()).with_context(|| format!("cannot start `{}`", process::line(&chaos)))
}
