//! `cargo xtask test`: every test of the workspace, including scenarios in network namespaces; or, with `--unit`, those
//! that need neither root nor the kernel.

mod rows;
mod skips;
mod summary;
mod unit;

use std::{fs, process::Command};

use anyhow::{Context as _, Result, bail};
use sidestep_tests::hold::KEEP;

use crate::build::{agent, kernel};
use crate::setup::{self, Need};
use crate::{image, package, process, workspace};

pub(crate) use rows::{Args as RowsArgs, Rows};

/// Which tests to run.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Build the agent with optimizations
    ///
    /// Applies to the agent that the scenarios start; the tests themselves are always built without.
    #[arg(long)]
    release: bool,
    /// Run only tests that need neither root nor the kernel
    ///
    /// Leaves out the scenarios in network namespaces, and prints what it left out.
    #[arg(long, conflicts_with = "release")]
    unit: bool,
    /// Stop at the first failure with its lab open
    ///
    /// Prints how to enter the lab's network namespaces, and waits. Runs one test at a time.
    #[arg(long, conflicts_with = "unit")]
    keep: bool,
    /// Parts of test names, or options for cargo-nextest
    ///
    /// Runs the tests whose name contains one of the filters, such as `affinity`; options go to `cargo nextest run`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    filter: Vec<String>,
}

impl Args {
    /// The runner's profile, in `.config/nextest.toml`.
    fn profile(&self) -> &'static str {
        if self.keep { "keep" } else { "default" }
    }
}

/// Builds, tests, and ends with two lines of counts: of tests, and of the rows that they prove.
pub(crate) fn run(args: &Args) -> Result<()> {
    let mut command = runner(args)?;
    // The runner writes its reports here, whatever CARGO_TARGET_DIR is.
    let report = workspace::path(&format!("target/nextest/{}/junit.xml", args.profile()));
    let skip_log = workspace::path("target/nextest/skipped.log");
    for stale in [&report, &skip_log] {
        if stale.exists() {
            fs::remove_file(stale).with_context(|| format!("cannot remove {}", stale.display()))?;
        }
    }
    let status = process::status(command.args(&args.filter).env("SIDESTEP_SKIP_LOG", &skip_log))?;

    if !report.exists() {
        bail!(
            "no test ran, so there is no {}: `{}` ended with {status}",
            report.display(),
            process::line(&command)
        );
    }
    let counts = summary::read(&report)?;
    let skips = skips::read(&skip_log)?;
    for skip in &skips {
        println!("SKIPPED {skip}");
    }
    // The runner counts a skipped test as passed.
    let passed = counts.passed.saturating_sub(skips::tests(&skips));
    println!("{passed} passed, {} failed, {} skipped", counts.failed, skips::tests(&skips));
    if args.unit {
        println!("left out: {}", unit::left_out()?);
    }
    if counts.failed > 0 || !status.success() {
        bail!("tests failed: `{}` ended with {status}", process::line(&command));
    }
    Rows::read()?.check((args.filter.is_empty() && !args.unit).then_some(&counts.names))
}

/// Builds what the tests need, and returns the command that runs them.
fn runner(args: &Args) -> Result<Command> {
    let needs: &[Need] = if args.unit { &[] } else { &[Need::Network] };
    setup::ensure(&[&[Need::KernelBuild, Need::Nextest], needs].concat())?;
    kernel::build()?;
    let mut command = workspace::cargo();
    command.args(["nextest", "run", "--profile", args.profile()]);
    if args.unit {
        unit::only(&mut command);
    } else {
        let profile = if args.release { agent::Profile::Release } else { agent::Profile::Dev };
        command.env("SIDESTEP_BIN", agent::build(profile)?).env("SIDESTEP_IMAGE", image::default_path());
        command.env("SIDESTEP_PACKAGE", package::default_path());
        command.env(sidestep_tests::program::ROOT, setup::programs::find());
        for (variable, found) in [
            ("SIDESTEP_KUBECTL", setup::kubectl::find()),
            ("SIDESTEP_HELM", setup::helm::find()),
            ("SIDESTEP_PROMETHEUS", setup::promtool::find()),
        ] {
            if let Some(path) = found {
                command.env(variable, path);
            }
        }
    }
    if args.keep {
        // Shows the output of the lab on the terminal at once.
        command.arg("--no-capture").env(KEEP, "1");
    }
    Ok(command)
}
