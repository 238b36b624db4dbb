//! Chaos as a program, which `cargo xtask chaos` builds and executes.

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::Result;
use clap::Parser;
use sidestep_tests::chaos::{self, Interrupt, Settings};

/// The options; `cargo xtask chaos --help` explains them.
#[derive(Parser)]
struct Options {
    #[arg(long)]
    minutes: f64,
    #[arg(long)]
    seed: Option<u64>,
    #[arg(long)]
    connections: usize,
    #[arg(long)]
    services: u32,
    #[arg(long, value_delimiter = ',')]
    binaries: Vec<PathBuf>,
}

fn main() -> ExitCode {
    match run(Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every promise was kept.
fn run(options: Options) -> Result<bool> {
    let interrupt = Interrupt::listen()?;
    let start = Instant::now();
    let settings = Settings {
        duration: Duration::try_from_secs_f64(options.minutes * 60.0)?,
        seed: match options.seed {
            Some(seed) => seed,
            None => SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
        },
        long_lived: options.connections,
        crowd: options.services,
        pause: Duration::from_millis(100),
        binaries: options.binaries,
    };
    let verdict = chaos::run(settings, &interrupt, |line| println!("{line}"))?;
    println!("\n{verdict}\nCleaned up after {:.0} s.", start.elapsed().as_secs_f32());
    if !verdict.is_flawless() {
        eprintln!("error: {} promises were broken", verdict.violations());
    }
    Ok(verdict.is_flawless())
}
