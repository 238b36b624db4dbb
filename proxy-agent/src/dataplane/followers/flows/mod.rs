//! The agent's part in north-south connections: it releases the records of idle ones, and lists them.
//!
//! The programs create records, confirm them and note their last use, all without the agent. Nothing evicts a
//! confirmed connection, so no flood can end it; therefore the agent sweeps FLOWS for idle ones.
//!
//! | file | concept |
//! |---|---|
//! | `verdict` | whether a connection is idle for too long (pure) |
//! | `sweep` | one pass over FLOWS |
//! | `crowd` | when the table is to grow |
//! | `strays` | removing conntrack entries of ended connections |
//! | `schedule` | when to sweep again (pure) |
//! | `list` | records as people read them |
//! | `unanswered` | how many were never answered |

mod crowd;
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

pub(crate) use self::crowd::Crowd;
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
    dataplane::{
        Error, SharedTables,
        node::{kube_proxy::Foreign, system::uptime},
    },
    timeouts::Timeouts,
};

/// The thread that sweeps.
#[derive(Debug)]
pub(crate) struct Flows {
    /// Wakes the thread. `None` only while dropping: it ends when this is gone.
    wake: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Flows {
    pub(crate) fn start(
        pin_dir: &Path,
        tables: &SharedTables,
        timeouts: Timeouts,
        crowd: Crowd,
        of_pods: bool,
    ) -> Result<Self, Error> {
        let (tables, mut strays) = (tables.clone(), Strays::open(pin_dir)?);
        let mut foreign = Foreign::open(pin_dir, tables.clone(), of_pods)?;
        let (wake, woken) = channel::<()>();
        let thread = std::thread::Builder::new()
            .name("flows".to_owned())
            .spawn(move || {
                let mut schedule = Schedule::new(&timeouts);
                let mut due = Instant::now() + schedule.wait();
                let mut strays_due = Instant::now() + strays::PERIOD;
                let wait = |due: Instant| {
                    due.saturating_duration_since(Instant::now()).min(crowd.period(&tables.now()))
                };
                while woken.recv_timeout(wait(due.min(strays_due))) != Err(RecvTimeoutError::Disconnected) {
                    crowd.look(&tables.now(), uptime());
                    let began = Instant::now();
                    if began >= strays_due {
                        strays.look(&tables.now().flows, uptime());
                        foreign.look_if_due();
                        strays_due = began + strays::PERIOD;
                    }
                    if began < due {
                        continue;
                    }
                    let Swept { confirmed, released, earliest } =
                        sweep(&tables.now().flows, &timeouts, uptime());
                    tracing::debug!(confirmed, released, "swept FLOWS: removed idle connection records");
                    schedule = schedule.swept(began.elapsed(), earliest);
                    due = Instant::now() + schedule.wait();
                }
            })
            .map_err(Error::system("starting a thread", "flows"))?;
        Ok(Self { wake: Some(wake), thread: Some(thread) })
    }

    /// The table is another one, and may have to be looked at more often.
    pub(crate) fn look(&self) {
        if let Some(wake) = &self.wake {
            // A thread that is gone has said why.
            let _ = wake.send(());
        }
    }
}

impl Drop for Flows {
    fn drop(&mut self) {
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            // The thread ends within one sweep; the next agent continues.
            let _ = thread.join();
        }
    }
}
