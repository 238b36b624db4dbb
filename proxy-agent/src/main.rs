//! The `sidestep` binary: reads the command line, and leaves the rest to the library.

use std::process::ExitCode;

use clap::Parser as _;
use nix::sys::signal::{SigHandler, Signal, signal};
use proxy_agent::commands::Cli;

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_none_or(|command| command != "run") {
        // `sidestep status | head` ends quietly. The agent must outlive whoever reads its log.
        // SAFETY: before any thread exists; the default action is always allowed.
        let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
    }
    match Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("sidestep: {error:#}");
            ExitCode::FAILURE
        }
    }
}
