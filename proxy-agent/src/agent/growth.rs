//! Lets the tables grow with what they are to hold, before a change is installed for which they are too small.

use std::time::{Duration, Instant};

use tracing::{error, info};

use super::follow::Agent;
use crate::{
    dataplane::{self, Capacity, HOOKS, NotInstalled, attach, is_pinned, load_beside},
    model::{Problem, Subject},
    plan::Changes,
};

/// How long the agent waits after it could not make bigger tables, which costs the kernel memory and time.
const PATIENCE: Duration = Duration::from_secs(10);

/// How far the tables may grow, and why they did not.
#[derive(Debug)]
pub(super) struct Growth {
    limits: Capacity,
    failed: Option<(Instant, Problem)>,
}

impl Growth {
    pub(super) fn new(limits: Capacity) -> Self {
        Self { limits, failed: None }
    }

    /// Why the tables are smaller than they should be, if they are.
    pub(super) fn problem(&self) -> Option<&Problem> {
        self.failed.as_ref().map(|(_, problem)| problem)
    }
}

impl Agent {
    /// Makes the tables bigger if they are too small for `changes`, of which as many follow as `parts` says.
    pub(super) fn make_room(&mut self, changes: &Changes, parts: u32) {
        if let Some(size) = self.dataplane.grown_for(changes, parts, self.growth.limits) {
            self.grow(size);
        }
    }

    /// Makes them bigger for what they had no room for all the same: endpoints need slots in a row.
    pub(super) fn make_room_for_refused(&mut self) {
        while self.not_installed.iter().any(NotInstalled::is_for_want_of_room)
            && let Some(size) = self.dataplane.capacity().next(self.growth.limits)
            && self.grow(size)
        {
            self.not_installed = self.dataplane.not_installed();
        }
    }

    /// Whether the tables have this size now.
    fn grow(&mut self, size: Capacity) -> bool {
        if self.growth.failed.as_ref().is_some_and(|(when, _)| when.elapsed() < PATIENCE) {
            return false;
        }
        let (before, began) = (self.dataplane.capacity(), Instant::now());
        self.growth.failed = match self.enlarge(size) {
            Ok(()) => {
                let Capacity { services, frontends, endpoints, clients, .. } = size;
                info!(
                    services, frontends, endpoints, clients, before = before.services, took = ?began.elapsed(),
                    "made the tables bigger"
                );
                None
            }
            Err(error) => {
                error!(%error, "cannot make the tables bigger");
                Some((Instant::now(), problem(&error)))
            }
        };
        self.growth.failed.is_none()
    }

    /// Makes tables of this size, and the programs use them.
    fn enlarge(&mut self, size: Capacity) -> Result<(), dataplane::Error> {
        let moved = self.move_programs(size);
        if moved.is_err() {
            dataplane::abandon_growth(&self.options.pin_dir)?;
        }
        let (ebpf, enlarged) = moved?;
        self.ebpf = ebpf;
        self.options.capacity = size;
        if self.options.program_log {
            super::start::follow_program_log(&mut self.ebpf);
        }
        if self.report.synced {
            self.interfaces.renew();
            self.interfaces.look(&mut self.ebpf);
        }
        self.dataplane.follow(enlarged)
    }

    /// Everything up to the point of no return: programs of sockets, which all move or none, then the pins.
    fn move_programs(
        &mut self,
        size: Capacity,
    ) -> Result<(aya::Ebpf, dataplane::Enlarged), dataplane::Error> {
        let mut ebpf = load_beside(&self.options, &size, &self.ebpf)?;
        let enlarged = self.dataplane.enlarge()?;
        // Before the first complete plan, programs of an earlier agent may serve from these tables.
        let attached = HOOKS.iter().any(|hook| is_pinned(&self.options.pin_dir, hook));
        if (self.report.synced || attached)
            && let Err(error) = attach(&mut ebpf, &self.options)
        {
            // Those that had moved read tables that nobody will write.
            attach(&mut self.ebpf, &self.options)?;
            return Err(error);
        }
        dataplane::commit_growth(&self.options.pin_dir)?;
        Ok((ebpf, enlarged))
    }
}

fn problem(error: &dataplane::Error) -> Problem {
    Problem {
        subject: Subject::ThisNode,
        field: "tables".to_owned(),
        message: format!(
            "cannot be made bigger: {error}; what does not fit is not served. The agent tries again with the next \
             change; a memory limit of its container counts the tables, too"
        ),
    }
}
