//! Connections from outside, as far as they are the agent's affair: giving back the slots of those that are idle, and telling
//! which there are.
//!
//! The programs make records, confirm them and note when they were used; they need no agent for that. Nothing pushes a
//! confirmed connection out, so that no flood can end it; what nobody uses any more has to be found.
//!
//! | file | concept |
//! |---|---|
//! | `verdict` | whether its time is over (pure) |
//! | `sweep` | one look at the whole table |
//! | `strays` | what conntrack is to forget when it is over |
//! | `schedule` | when to look again (pure) |
//! | `list` | connections as people know them |
//! | `unanswered` | how many were never answered |

mod list;
mod schedule;
mod strays;
mod sweep;
#[cfg(test)]
mod tests;
mod unanswered;
mod verdict;

use std::{
    path::Path,
    sync::mpsc::{RecvTimeoutError, Sender, channel},
    thread::JoinHandle,
    time::Instant,
};

pub use self::{
    list::{FlowState, ListedFlow, list},
    unanswered::{Unanswered, unanswered},
};
use self::{
    schedule::Schedule,
    strays::Strays,
    sweep::{Swept, sweep},
};
use crate::{
    dataplane::{Error, node::system::uptime, tables::flow_table::FlowTable},
    timeouts::Timeouts,
};

/// The thread that sweeps.
#[derive(Debug)]
pub(super) struct Flows {
    /// `None` only while dropping: the thread ends when this is gone.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Flows {
    pub(super) fn start(pin_dir: &Path, timeouts: Timeouts) -> Result<Self, Error> {
        let (table, mut strays) = (FlowTable::open(pin_dir)?, Strays::open(pin_dir)?);
        let (stop, stopped) = channel::<()>();
        let thread = std::thread::Builder::new()
            .name("flows".to_owned())
            .spawn(move || {
                let mut schedule = Schedule::new(&timeouts);
                let mut due = Instant::now() + schedule.wait();
                let wait = |due: Instant| due.saturating_duration_since(Instant::now()).min(strays::PERIOD);
                while stopped.recv_timeout(wait(due)) == Err(RecvTimeoutError::Timeout) {
                    strays.look(&table, uptime());
                    let began = Instant::now();
                    if began < due {
                        continue;
                    }
                    let Swept { confirmed, released, earliest } = sweep(&table, &timeouts, uptime());
                    tracing::debug!(confirmed, released, "swept FLOWS: removed idle connection records");
                    schedule = schedule.swept(began.elapsed(), earliest);
                    due = Instant::now() + schedule.wait();
                }
            })
            .map_err(Error::system("starting a thread", "flows"))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Flows {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // It ends within a sweep. What it did not come to, the next agent finds.
            let _ = thread.join();
        }
    }
}
