//! Lets the tables grow with what they are to hold, before a change is installed for which they are too small; and go back when
//! they have long been nearly empty, or a restart has lower limits.

use std::{
    mem, panic,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use aya::Ebpf;
use proxy_common::connection::PortShare;
use tracing::{error, info, warn};

use super::{
    follow::Agent,
    growth::{Loaded, Loading, Purpose},
    start::follow_program_log,
};
use crate::{
    dataplane::{
        self, Capacity, HOOKS, NotInstalled, Resized, attach, is_pinned, load_beside, loaded_packet_programs,
    },
    plan::Changes,
};

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
            self.resize();
        }
    }

    /// Makes them bigger for what they had no room for all the same: endpoints need slots in a row.
    pub(super) fn make_room_for_refused(&mut self) {
        while self.not_installed.iter().any(NotInstalled::is_for_want_of_room)
            && !self.growth.has_just_failed()
            && let Some(size) = self.dataplane.capacity().next(self.growth.limits)
        {
            self.begin_to_grow(size);
            self.resize();
            self.not_installed = self.dataplane.not_installed();
        }
    }

    /// Tries again to make them bigger, if that failed a while ago.
    pub(super) fn try_to_grow_again(&mut self) {
        let Some(size) = self.growth.due_again() else { return };
        let (now, needed) = (self.dataplane.capacity(), self.dataplane.needed(&Changes::default(), 0));
        let for_clients = size.clients > now.clients || size.flows > now.flows;
        let for_services = !self.not_installed.is_empty() || now.grown(needed, self.growth.limits).is_some();
        if for_clients || for_services {
            self.begin_to_grow(size);
        } else {
            self.growth.note_success();
        }
    }

    /// Makes the tables smaller once they have been far too big for long enough. What lies in the part that goes moves or is
    /// waited for.
    pub(super) fn give_room_back(&mut self) {
        if !self.report.synced || !self.growth.may_shrink(Instant::now()) {
            return;
        }
        let spare = self.dataplane.spare(self.growth.limits);
        if let Some(size) = self.growth.due_to_shrink(spare, Instant::now()) {
            self.dataplane.withdraw_to(&size);
            if let Some(size) = self.dataplane.within_reach(size, self.growth.limits) {
                self.load(Purpose::Shrink, size);
            }
        }
    }

    /// Makes the table of connections bigger, as a quarter of it is in use.
    pub(super) fn make_room_for_connections(&mut self) {
        // Its records move when the programs of all devices do.
        if self.report.synced
            && !self.growth.has_just_failed()
            && let Some(size) = self.dataplane.capacity().with_more_flows(self.growth.limits)
        {
            self.begin_to_grow(size);
        }
    }

    /// Loads programs on bigger tables, if none are being loaded.
    fn begin_to_grow(&mut self, size: Capacity) {
        self.growth.note_growth();
        match &self.growth.loading {
            None => self.load(Purpose::Grow, size),
            Some(Loading { purpose: Purpose::Grow, .. }) => {}
            // Not now.
            Some(Loading { purpose: Purpose::Shrink, .. }) => {
                drop(self.loaded());
                self.abandon();
                self.load(Purpose::Grow, size);
            }
        }
    }

    fn load(&mut self, purpose: Purpose, size: Capacity) {
        let (options, loaded, done) = (self.options.clone(), self.growth.loaded(), Arc::default());
        let is_done: Arc<AtomicBool> = Arc::clone(&done);
        let packet_programs = loaded_packet_programs(&self.ebpf);
        let load = move || {
            let ebpf = load_beside(&options, &size, &packet_programs);
            is_done.store(true, Ordering::Release);
            loaded.notify_one();
            ebpf
        };
        let thread = std::thread::Builder::new().name("growth".to_owned()).spawn(load);
        match thread {
            Ok(thread) => {
                self.growth.loading = Some(Loading { purpose, size, began: Instant::now(), done, thread });
            }
            Err(error) => self.failed(purpose, size, &dataplane::Error::thread("growth", error)),
        }
    }

    /// Waits for the programs that are being loaded, if there are any.
    fn loaded(&mut self) -> Option<(Loaded, Result<Ebpf, dataplane::Error>)> {
        let Loading { purpose, size, began, done: _, thread } = self.growth.loading.take()?;
        let ebpf = thread.join().unwrap_or_else(|payload| panic::resume_unwind(payload));
        Some((Loaded { purpose, size, began }, ebpf))
    }

    /// [`Agent::resize`], on its own.
    pub(super) fn resize_and_report(&mut self) {
        // Else the notification was of others, which a change could not wait for.
        if self.growth.is_loaded() {
            self.resize();
            self.write_report();
        }
    }

    /// Waits until the programs are loaded, and uses them and their tables from then on: for less room only if that is still
    /// enough.
    pub(super) fn resize(&mut self) {
        let Some((Loaded { purpose, size, began }, ebpf)) = self.loaded() else { return };
        if purpose == Purpose::Shrink && self.dataplane.within_reach(size, self.growth.limits) != Some(size) {
            info!("the tables stay as long as they are: more is in use by now");
            drop(ebpf);
            self.abandon();
            return;
        }
        let (before, switched) = (self.dataplane.capacity().services, Instant::now());
        let moved = ebpf.and_then(|ebpf| self.move_to(ebpf, size));
        // Of those that serve now, whichever they are.
        if let Err(error) = dataplane::share_ports(&mut self.ebpf, PortShare::All) {
            warn!(%error, "half of the source ports are not used");
        }
        match moved {
            Ok(()) => {
                let Capacity { services, frontends, endpoints, clients, flows } = size;
                info!(
                    services, frontends, endpoints, clients, flows, before,
                    took = ?began.elapsed(), switch = ?switched.elapsed(),
                    "made the tables {}", purpose.outcome()
                );
                self.growth.note_success();
            }
            Err(error) => self.failed(purpose, size, &error),
        }
    }

    fn failed(&mut self, purpose: Purpose, size: Capacity, error: &dataplane::Error) {
        self.abandon();
        match purpose {
            Purpose::Grow => {
                error!(%error, "cannot make the tables bigger");
                self.growth.note_failure(size, error);
            }
            // Nothing is amiss: it is tried again.
            Purpose::Shrink => warn!(%error, "cannot make the tables smaller"),
        }
    }

    fn abandon(&self) {
        if let Err(error) = dataplane::abandon_growth(&self.options.pin_dir) {
            error!(%error, "cannot remove the tables that nobody uses");
        }
    }

    /// Uses these programs and their tables.
    fn move_to(&mut self, mut ebpf: Ebpf, size: Capacity) -> Result<(), dataplane::Error> {
        dataplane::share_ports(&mut self.ebpf, PortShare::Lower)?;
        dataplane::share_ports(&mut ebpf, PortShare::Upper)?;
        let (ebpf, resized) = self.move_sockets(ebpf)?;
        let mut before = mem::replace(&mut self.ebpf, ebpf);
        self.options.capacity = size;
        if self.options.program_log {
            follow_program_log(&mut self.ebpf);
        }
        if self.report.synced {
            if resized.has_connections() {
                self.move_connections(&mut before, &resized);
            }
            self.interfaces.renew();
            if self.interfaces.look(&mut self.ebpf) {
                self.dataplane.look_at_namespaces();
            }
        }
        self.dataplane.follow(resized)
    }

    /// Lets connections begin in the other tables, and moves those that have begun: before that the last that drew any source
    /// port, and after it the last that began in the present tables.
    fn move_connections(&mut self, before: &mut Ebpf, resized: &Resized) {
        self.dataplane.resize_connections(resized);
        if let Err(error) = dataplane::hand_on(before, &self.ebpf) {
            warn!(%error, "connections that begin while the tables are replaced may be lost");
        }
        self.dataplane.resize_connections(resized);
    }

    /// Everything up to the point of no return: the copy, the programs of sockets, which all move or none, then the pins.
    fn move_sockets(&mut self, mut ebpf: Ebpf) -> Result<(Ebpf, Resized), dataplane::Error> {
        let resized = self.dataplane.resize()?;
        // Before the first complete plan, programs of an earlier agent may serve from these tables.
        let attached = HOOKS.iter().any(|hook| is_pinned(&self.options.pin_dir, hook));
        let serves = self.report.synced || attached;
        let moved = if serves { attach(&mut ebpf, &self.options) } else { Ok(()) };
        if let Err(error) = moved.and_then(|()| dataplane::commit_growth(&self.options.pin_dir)) {
            if serves {
                // Those that had moved read tables that nobody will write.
                attach(&mut self.ebpf, &self.options)?;
            }
            return Err(error);
        }
        Ok((ebpf, resized))
    }
}
