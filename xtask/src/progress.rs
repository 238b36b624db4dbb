//! Progress of long steps: a spinner on a terminal, plain lines elsewhere.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use anyhow::Result;
use indicatif::ProgressBar;

/// Runs `work` while showing `what`; then prints whether it succeeded, and how long it took.
pub(crate) fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    let spinner = if std::io::stderr().is_terminal() {
        let spinner = ProgressBar::new_spinner().with_message(what.to_owned());
        spinner.enable_steady_tick(Duration::from_millis(100));
        Some(spinner)
    } else {
        eprintln!("     … {what}");
        None
    };
    let result = work();
    if let Some(spinner) = spinner {
        spinner.finish_and_clear();
    }
    let outcome = if result.is_ok() { "ok" } else { "FAILED" };
    eprintln!("{outcome:>6} {what} ({:.1} s)", start.elapsed().as_secs_f32());
    result
}
