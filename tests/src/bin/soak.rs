//! The soak test as a program, `soak MINUTES MAX_FLOWS`, which `cargo xtask soak` builds and executes.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use sidestep_tests::soak::{self, Settings};

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every promise was kept.
fn run() -> Result<bool> {
    let mut arguments = std::env::args().skip(1);
    let minutes: f64 = arguments
        .next()
        .context("usage: soak MINUTES MAX_FLOWS")?
        .parse()
        .context("MINUTES is not a number")?;
    let max_flows = arguments
        .next()
        .context("usage: soak MINUTES MAX_FLOWS")?
        .parse()
        .context("MAX_FLOWS is not a number")?;
    let start = Instant::now();
    let settings = Settings { duration: Duration::try_from_secs_f64(minutes * 60.0)?, max_flows };
    let verdict = soak::run(settings, |line| println!("{line}"))?;
    println!("\n{verdict}\nCleaned up after {:.0} s.", start.elapsed().as_secs_f32());
    if !verdict.is_flawless() {
        eprintln!("error: {} promises were broken", verdict.violations());
    }
    Ok(verdict.is_flawless())
}
