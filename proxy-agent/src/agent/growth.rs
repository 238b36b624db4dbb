//! Lets the tables grow with what they are to hold, before a change is installed for which they are too small.

use std::{
    panic,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use aya::Ebpf;
use tokio::sync::Notify;
use tracing::{error, info};

use super::follow::Agent;
use crate::{
    dataplane::{
        self, Capacity, Enlarged, HOOKS, NotInstalled, attach, is_pinned, load_beside, loaded_packet_programs,
    },
    model::{Problem, Subject},
    plan::Changes,
};

/// How long the agent waits after it could not make bigger tables, which costs the kernel memory and time.
const PATIENCE: Duration = Duration::from_secs(10);

/// How far the tables may grow, and what is under way.
#[derive(Debug)]
pub(super) struct Growth {
    limits: Capacity,
    loading: Option<Loading>,
    /// Says when it is loaded.
    loaded: Arc<Notify>,
    /// Why the last one failed.
    failed: Option<(Instant, Problem)>,
}

/// Programs that are being loaded on bigger tables. It takes the verifier a while, and nothing waits for it that fits into
/// the present ones.
#[derive(Debug)]
struct Loading {
    size: Capacity,
    began: Instant,
    thread: JoinHandle<Result<Ebpf, dataplane::Error>>,
}

impl Growth {
    pub(super) fn new(limits: Capacity) -> Self {
        Self { limits, loading: None, loaded: Arc::default(), failed: None }
    }

    /// Why the tables are smaller than they should be, if they are.
    pub(super) fn problem(&self) -> Option<&Problem> {
        self.failed.as_ref().map(|(_, problem)| problem)
    }

    /// Notified when [`Agent::grow`] has something to do.
    pub(super) fn loaded(&self) -> Arc<Notify> {
        Arc::clone(&self.loaded)
    }

    fn has_just_failed(&self) -> bool {
        self.failed.as_ref().is_some_and(|(when, _)| when.elapsed() < PATIENCE)
    }
}

impl Agent {
    /// Makes the tables bigger if they are too small for `changes`, of which as many follow as `parts` says. Waits only if
    /// those do not fit into the present ones.
    pub(super) fn make_room(&mut self, changes: &Changes, parts: u32) {
        let needed = self.dataplane.needed(changes, parts);
        while !self.growth.has_just_failed()
            && let Some(size) = self.dataplane.capacity().grown(needed, self.growth.limits)
        {
            self.begin_to_grow(size);
            if self.dataplane.capacity().holds(needed) {
                return;
            }
            self.grow();
        }
    }

    /// Makes them bigger for what they had no room for all the same: endpoints need slots in a row.
    pub(super) fn make_room_for_refused(&mut self) {
        while self.not_installed.iter().any(NotInstalled::is_for_want_of_room)
            && !self.growth.has_just_failed()
            && let Some(size) = self.dataplane.capacity().next(self.growth.limits)
        {
            self.begin_to_grow(size);
            self.grow();
            self.not_installed = self.dataplane.not_installed();
        }
    }

    /// Loads programs on tables of this size, if none are being loaded.
    fn begin_to_grow(&mut self, size: Capacity) {
        if self.growth.loading.is_some() {
            return;
        }
        let (options, loaded) = (self.options.clone(), self.growth.loaded());
        let packet_programs = loaded_packet_programs(&self.ebpf);
        let load = move || {
            let ebpf = load_beside(&options, &size, &packet_programs);
            loaded.notify_one();
            ebpf
        };
        let thread = std::thread::Builder::new().name("growth".to_owned()).spawn(load);
        match thread {
            Ok(thread) => self.growth.loading = Some(Loading { size, began: Instant::now(), thread }),
            Err(error) => self.failed_to_grow(&dataplane::Error::thread("growth", error)),
        }
    }

    /// [`Agent::grow`], on its own.
    pub(super) fn grow_and_report(&mut self) {
        self.grow();
        self.write_report();
    }

    /// Waits until the programs are loaded, and uses them and their tables from then on.
    pub(super) fn grow(&mut self) {
        let Some(Loading { size, began, thread }) = self.growth.loading.take() else { return };
        let ebpf = thread.join().unwrap_or_else(|payload| panic::resume_unwind(payload));
        let (before, switched) = (self.dataplane.capacity(), Instant::now());
        match ebpf.and_then(|ebpf| self.move_to(ebpf, size)) {
            Ok(()) => {
                let Capacity { services, frontends, endpoints, clients, flows } = size;
                info!(
                    services, frontends, endpoints, clients, flows, before = before.services,
                    took = ?began.elapsed(), switch = ?switched.elapsed(),
                    "made the tables bigger"
                );
                self.growth.failed = None;
            }
            Err(error) => self.failed_to_grow(&error),
        }
    }

    fn failed_to_grow(&mut self, error: &dataplane::Error) {
        error!(%error, "cannot make the tables bigger");
        if let Err(error) = dataplane::abandon_growth(&self.options.pin_dir) {
            error!(%error, "cannot remove the tables that nobody uses");
        }
        self.growth.failed = Some((Instant::now(), problem(error)));
    }

    /// Uses these programs and their tables.
    fn move_to(&mut self, ebpf: Ebpf, size: Capacity) -> Result<(), dataplane::Error> {
        let (ebpf, enlarged) = self.move_sockets(ebpf)?;
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

    /// Everything up to the point of no return: the copy, the programs of sockets, which all move or none, then the pins.
    fn move_sockets(&mut self, mut ebpf: Ebpf) -> Result<(Ebpf, Enlarged), dataplane::Error> {
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
