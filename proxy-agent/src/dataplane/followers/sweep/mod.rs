//! Gives back what no program gives back: old translations in OVERFLOW, elements of PEERS whose socket is gone, and the buffers
//! of listeners that ended without a word.
//!
//! | file | concept |
//! |---|---|
//! | `overflow` | translations that nobody has used for a while |
//! | `peers` | elements of sockets that ended without the `release` hook |

mod overflow;
mod peers;

use std::{
    path::Path,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use self::overflow::Overflow;
use crate::dataplane::{Error, node::system::monotonic_nanoseconds, tables::listeners};

/// Between two looks at OVERFLOW.
const PERIOD: Duration = Duration::from_secs(10);
/// Between two looks at PEERS; the first one comes with the first look at OVERFLOW.
const PERIOD_OF_PEERS: Duration = Duration::from_mins(10);

/// The thread that sweeps.
#[derive(Debug)]
pub(super) struct Sweep {
    /// `None` only while dropping: the thread ends when the sender is gone.
    keep: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Sweep {
    pub(super) fn start(pin_dir: &Path) -> Result<Self, Error> {
        let overflow = Overflow::open(pin_dir)?;
        let pin_dir = pin_dir.to_owned();
        let (keep, end) = channel();
        // It enters network namespaces, so it must do nothing else.
        let thread = std::thread::Builder::new()
            .name("sweep".to_owned())
            .spawn(move || run(overflow, &pin_dir, &end))
            .map_err(Error::system("starting a thread", "sweep"))?;
        Ok(Self { keep: Some(keep), thread: Some(thread) })
    }
}

impl Drop for Sweep {
    fn drop(&mut self) {
        self.keep = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(mut overflow: Overflow, pin_dir: &Path, end: &Receiver<()>) {
    let mut last = None;
    while end.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
        if let Err(error) = overflow.sweep() {
            tracing::warn!(%error, "cannot remove old translations of datagrams");
        }
        if let Err(error) = listeners::clear_away(pin_dir, monotonic_nanoseconds()) {
            tracing::warn!(%error, "cannot clear away what a listener left");
        }
        if last.is_none_or(|last: Instant| last.elapsed() >= PERIOD_OF_PEERS) {
            match peers::sweep(pin_dir, if last.is_none() { 1 } else { peers::FEW }) {
                Ok(0) => tracing::debug!("no element of PEERS to free"),
                Ok(freed) => {
                    tracing::info!(elements = freed, "freed elements of PEERS whose sockets are gone");
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot look for elements of PEERS whose sockets are gone");
                }
            }
            last = Some(Instant::now());
        }
    }
}
