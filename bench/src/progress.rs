//! What a benchmark is doing, on standard error: a line a stage, with the rounds counted on a terminal.

use std::{
    io::{IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

/// Tells a person how far it is.
#[derive(Debug)]
pub(crate) struct Progress {
    start: Instant,
    shown: Instant,
    stage: String,
    terminal: bool,
}

impl Progress {
    /// Starts the clock.
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self { start: now, shown: now, stage: String::new(), terminal: std::io::stderr().is_terminal() }
    }

    /// A new stage.
    pub(crate) fn stage(&mut self, what: impl Into<String>) {
        self.stage = what.into();
        self.show("");
        if !self.terminal {
            eprintln!();
        }
    }

    /// Rounds of the stage that are over.
    pub(crate) fn tick(&mut self, done: usize, all: usize) {
        if self.terminal && self.shown.elapsed() > Duration::from_millis(200) {
            self.show(&format!(", round {done} of at most {all}"));
        }
    }

    /// Seconds since the start.
    pub(crate) fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    fn show(&mut self, detail: &str) {
        self.shown = Instant::now();
        let clear = if self.terminal { "\r\x1b[2K" } else { "" };
        eprint!("{clear}{:>6.1} s  {}{detail}", self.seconds(), self.stage);
        let _ = std::io::stderr().flush();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.terminal {
            eprintln!();
        }
    }
}
