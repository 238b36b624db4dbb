//! `cargo xtask fuzz`: LLVM's libFuzzer on the targets of `fuzz/`, guided by coverage.
//!
//! A stable compiler is enough: the pass that counts coverage is LLVM's, and the flags that run it are stable. There is no
//! `AddressSanitizer`, which is not: what is fuzzed has no `unsafe` of its own, and overflows and failed assertions panic.

mod build;
mod keep;
mod run;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::setup::{self, Need};
use crate::workspace;

/// What to fuzz, and how long.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Targets
    ///
    /// By default all, one after the other; the folders of fuzz/corpus.
    target: Vec<String>,
    /// Minutes for each target
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Keep in fuzz/corpus what reaches most code
    #[arg(long)]
    keep: bool,
    /// Run these bytes instead, as a crash left them
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
}

/// Builds the fuzzer, runs it on each target, and prints how much it did. Fails at the first crash.
pub(crate) fn run(args: &Args) -> Result<()> {
    let known = targets()?;
    if let Some(unknown) = args.target.iter().find(|target| !known.contains(target)) {
        bail!("there is no target `{unknown}`, only {}", known.join(", "));
    }
    let targets = if args.target.is_empty() { &known } else { &args.target };
    setup::ensure(&[Need::KernelBuild, Need::Fuzzer])?;
    let fuzzer = build::fuzzer()?;
    if let Some(input) = &args.input {
        let [target] = targets.as_slice() else { bail!("--input goes with one target") };
        return run::repeat(&fuzzer, target, input);
    }
    let mut table = run::table();
    for target in targets {
        table.add_row(run::target(&fuzzer, target, args.minutes, args.keep)?);
    }
    println!("{table}");
    Ok(())
}

/// The names of the targets: each has a corpus.
fn targets() -> Result<Vec<String>> {
    let folder = corpus("");
    let entries = std::fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names = names.collect::<Result<Vec<_>>>()?;
    names.sort_unstable();
    Ok(names)
}

/// The inputs that the repository keeps.
fn corpus(target: &str) -> PathBuf {
    workspace::path("fuzz/corpus").join(Path::new(target))
}
