//! `cargo xtask soak`: builds the agent and the soak in release, and becomes the soak.

use std::{os::unix::process::CommandExt as _, process::Command};

use anyhow::{Context as _, Result};

use crate::{
    build::{agent, kernel},
    process,
    setup::{self, Need},
    workspace,
};

/// How long, and with how small a table.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many minutes clients go on; two more follow, in which conntrack forgets them
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Room for records of connections: a twentieth of the agent's own default
    #[arg(long, default_value_t = 3_293)]
    max_flows: u32,
}

/// Builds, then replaces this process by the soak, which fails if any promise was broken.
pub(crate) fn run(args: &Args) -> Result<()> {
    if let Some(reason) = sidestep_tests::skip::missing() {
        anyhow::bail!("the soak cannot run: {reason}");
    }
    setup::ensure(&[Need::KernelBuild, Need::Network])?;
    kernel::build()?;
    let sidestep = agent::build_with(agent::Profile::Release, &["soak"])?;
    let mut soak = Command::new(workspace::target("release/soak"));
    soak.args([args.minutes.to_string(), args.max_flows.to_string()]).env("SIDESTEP_BIN", sidestep);
    Err(soak.exec()).with_context(|| format!("cannot start `{}`", process::line(&soak)))
}
