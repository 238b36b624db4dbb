//! How a benchmark runs and reports: the flags that all of them have.

use std::path::PathBuf;

use clap::ValueEnum;

use crate::part::Part;

/// How a benchmark runs and reports.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// What to print
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Output,
    /// Exit with status 1 where a goal is missed
    #[arg(long)]
    pub(crate) check: bool,
    /// A minute instead of several: fewer rounds, no 100,000 Services
    #[arg(long)]
    pub(crate) quick: bool,
    /// Only these parts of `connect` and `nodeport`; the others have none
    #[arg(long, value_enum)]
    pub(crate) only: Vec<Part>,
    /// The object with the programs to compare with; `cargo xtask bench` sets it
    #[arg(long, env = "SIDESTEP_BENCH_OBJECT", hide = true)]
    pub(crate) object: Option<PathBuf>,
}

impl Options {
    /// Whether this part is to be measured.
    pub(crate) fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// Tables for people
    Table,
    /// One JSON document with every sample
    Json,
}
