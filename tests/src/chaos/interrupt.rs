//! Ctrl-C and SIGTERM, which end a run early, with everything put away.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};

/// Whether somebody wants it to end.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Listens for signals instead of ending by them. A program calls this first, as threads inherit it. A second signal
    /// ends the program at once.
    pub fn listen() -> Result<Self> {
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGINT);
        signals.add(Signal::SIGTERM);
        signals.thread_block().context("cannot block signals")?;
        let interrupt = Self::default();
        let pending = Arc::clone(&interrupt.0);
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            while let Ok(signal) = signals.wait() {
                if pending.swap(true, Ordering::Relaxed) {
                    std::process::exit(128 + signal as i32);
                }
                eprintln!("{signal}: ending; again to end at once");
            }
        })?;
        Ok(interrupt)
    }

    /// Whether a signal has come.
    pub fn is_pending(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
