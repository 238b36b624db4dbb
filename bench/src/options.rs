//! How a benchmark runs and reports: the flags that all of them have.

use std::path::PathBuf;

use clap::ValueEnum;

use crate::part::Part;

/// How a benchmark runs and reports.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Output format
    ///
    /// The JSON document has every sample; the tables have medians with confidence intervals.
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Output,
    /// Exit with status 1 if a goal is missed
    ///
    /// Goals are limits on ratios, such as to direct connections; the report lists each one.
    #[arg(long)]
    pub(crate) check: bool,
    /// Take about a minute instead of several
    ///
    /// Fewer rounds, and no runs with 100,000 Services: intervals are wider.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Measure only these parts of `connect` and `nodeport`
    ///
    /// Repeat the flag for several. The other benchmarks have no parts.
    #[arg(long, value_enum)]
    pub(crate) only: Vec<Part>,
    /// The object with the programs for comparison; `cargo xtask bench` sets it
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
