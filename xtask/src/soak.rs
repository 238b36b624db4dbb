//! `cargo xtask soak`: builds the agent and the soak in release, then replaces itself with the soak.

use std::{os::unix::process::CommandExt as _, process::Command};

use anyhow::{Context as _, Result};

use crate::{
    build::{agent, kernel},
    process,
    setup::{self, Need},
    workspace,
};

/// How long, and with how small a FLOWS.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Minutes of traffic
    ///
    /// Two more minutes follow, in which conntrack forgets the connections.
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Capacity for north-south connections, as the agent's --max-flows
    ///
    /// The default is a twentieth of the agent's, so that floods fill the table and evict records.
    #[arg(long, default_value_t = 3_293)]
    max_flows: u32,
}

/// Builds, then replaces this process by the soak, which fails if a connection broke that should have survived.
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
