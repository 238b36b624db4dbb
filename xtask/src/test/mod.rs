//! `cargo xtask test`: every test of the workspace, scenarios in network namespaces included.

mod rows;
mod skips;
mod summary;

use std::fs;

use anyhow::{Context as _, Result, bail};

use crate::build::{agent, kernel};
use crate::setup::{self, Need};
use crate::{image, process, workspace};

pub(crate) use rows::Rows;

/// Which tests to run.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Build the agent that the scenarios start with optimizations
    #[arg(long)]
    release: bool,
    /// Parts of test names; anything else goes to cargo-nextest as it is
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    filter: Vec<String>,
}

/// Builds, tests, and ends with two lines of counts: of tests, and of the rows that they prove.
pub(crate) fn run(args: &Args) -> Result<()> {
    setup::ensure(&[Need::KernelBuild, Need::Network, Need::Nextest])?;
    kernel::build()?;
    let binary = agent::build(if args.release { agent::Profile::Release } else { agent::Profile::Dev })?;

    let report = workspace::target("nextest/default/junit.xml");
    let skip_log = workspace::target("nextest/skipped.log");
    for stale in [&report, &skip_log] {
        if stale.exists() {
            fs::remove_file(stale).with_context(|| format!("cannot remove {}", stale.display()))?;
        }
    }
    let mut command = workspace::cargo();
    command.args(["nextest", "run"]).args(&args.filter);
    command
        .env("SIDESTEP_BIN", &binary)
        .env("SIDESTEP_SKIP_LOG", &skip_log)
        .env("SIDESTEP_IMAGE", image::default_path());
    if let Some(kubectl) = setup::kubectl::find() {
        command.env("SIDESTEP_KUBECTL", kubectl);
    }
    let status = process::status(&mut command)?;

    if !report.exists() {
        bail!("no test ran: `{}` ended with {status}", process::line(&command));
    }
    let counts = summary::read(&report)?;
    let skips = skips::read(&skip_log)?;
    for skip in &skips {
        println!("SKIPPED {skip}");
    }
    // A test that skips ends well, so the runner counts it as passed.
    let passed = counts.passed.saturating_sub(skips::tests(&skips));
    println!("{passed} passed, {} failed, {} skipped", counts.failed, skips::tests(&skips));
    if counts.failed > 0 || !status.success() {
        bail!("tests failed: `{}` ended with {status}", process::line(&command));
    }
    Rows::read()?.check(args.filter.is_empty().then_some(&counts.names))
}
