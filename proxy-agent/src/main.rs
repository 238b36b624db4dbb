//! The `sidestep` binary: reads the command line, and leaves the rest to the library.

use std::process::ExitCode;

use clap::Parser as _;
use proxy_agent::commands::Cli;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("sidestep: {error:#}");
            ExitCode::FAILURE
        }
    }
}
