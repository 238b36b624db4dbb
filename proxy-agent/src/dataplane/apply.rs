//! [`Dataplane`]: the maps, and their followers.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use proxy_common::Protocol;
use tokio::sync::Notify;

use super::{
    Error, Options,
    followers::{Followers, flows::Crowd, namespaces::PassedNamespace},
    node::system::{has_tail_calls, uptime},
    tables::{
        capacity::Capacity, crash, exposed::Exposed, flow_table::Recent, growth, installed::InstalledPorts,
        maps::abi_dir, not_installed::NotInstalled, pinned::Tables, resize::Resized, shared::SharedTables,
        writer::Writer,
    },
};
use crate::plan::{Changes, ServicePlan, ServicePortId};

/// The kernel's tables, with one writer, and its followers.
#[derive(Debug)]
pub struct Dataplane {
    writer: Writer,
    followers: Followers,
    shared: SharedTables,
    crowded: Arc<Notify>,
    pin_dir: PathBuf,
    /// Whether packets of pods may begin connections with any Service.
    of_pods: bool,
    /// How many seconds an unconfirmed connection is waited for.
    patience: u8,
}

/// Seconds that a handshake takes at most. A SYN that is sent again later may have another endpoint.
const HANDSHAKE: u32 = 16;
/// What fits into the eight bits of a record's second.
const LONGEST: u32 = 240;

impl Dataplane {
    /// Opens the tables that [`super::load`] made or found, adopts their content, and starts the followers.
    pub fn open(options: &Options) -> Result<Self, Error> {
        let pin_dir = options.pin_dir.clone();
        let writer = Writer::open(&pin_dir)?;
        let shared = SharedTables::new(writer.tables().again(&pin_dir)?);
        let crowd = Crowd::new(options.flows.limit);
        let crowded = crowd.grow();
        let of_pods = options.flows.of_pods;
        let followers = Followers::start(options, &shared, crowd)?;
        let patience = options.flows.timeouts.udp_seconds().clamp(HANDSHAKE, LONGEST).to_le_bytes()[0];
        Ok(Self { writer, followers, shared, crowded, pin_dir, of_pods, patience })
    }

    /// Notified when FLOWS is to grow.
    pub fn crowded(&self) -> Arc<Notify> {
        Arc::clone(&self.crowded)
    }

    /// The tables, for those of this process who only look.
    pub fn shared(&self) -> SharedTables {
        self.shared.clone()
    }

    /// What the tables have room for.
    pub fn capacity(&self) -> Capacity {
        self.writer.capacity()
    }

    /// What the tables must have room for when `changes` are installed, and as many more of the same as `parts` says.
    pub fn needed(&self, changes: &Changes, parts: u32) -> Capacity {
        let mut needed = self.writer.needed(changes, parts);
        if self.of_pods && !changes.install.is_empty() {
            needed.flows = Capacity::FIRST_FLOWS;
        }
        // Where programs cannot give packets to their successors, connections get all their room at once.
        let flows = if needed.flows == 0 || has_tail_calls() { needed.flows } else { u32::MAX };
        Capacity { flows, ..needed }
    }

    /// The size that what the tables hold would allow them to go back to, if one is worth it. Nothing may be missing.
    pub fn spare(&mut self, limits: Capacity) -> Option<Capacity> {
        let nothing = Capacity { services: 0, frontends: 0, endpoints: 0, clients: 0, flows: 0 };
        let spare = self.shrunk(nothing, limits);
        if spare.is_none() {
            self.writer.stay_anywhere();
        }
        spare
    }

    /// Makes what lies beyond this size free as far as that can be done. Waits for a grace period.
    pub fn withdraw_to(&mut self, size: &Capacity) {
        self.writer.withdraw_to(size);
    }

    /// How long tables must be for what they hold, where it lies.
    pub fn extent(&self) -> Capacity {
        self.writer.extent()
    }

    /// The smallest size from this one on that the tables can go back to now, if one is worth it.
    pub fn within_reach(&self, size: Capacity, limits: Capacity) -> Option<Capacity> {
        self.shrunk(size.max(self.extent()), limits)
    }

    fn shrunk(&self, least: Capacity, limits: Capacity) -> Option<Capacity> {
        if !self.writer.not_installed().is_empty() {
            return None;
        }
        // Mostly that is all: what follows looks at every Service.
        let least_used = self.writer.needed(&Changes::default(), 0);
        self.capacity().shrunk(least_used, least, limits)?;
        let used = self.writer.used(self.recent());
        // Where programs cannot give packets to their successors, connections stay.
        let flows = if has_tail_calls() { used.flows } else { u32::MAX };
        self.capacity().shrunk(Capacity { flows, ..used }, least, limits)
    }

    /// Which unconfirmed connections must not be lost.
    fn recent(&self) -> Recent {
        Recent { now: uptime(), seconds: self.patience }
    }

    /// Copies everything to the tables that programs were loaded on ([`super::load_beside`]). Nothing may be
    /// installed until [`Dataplane::follow`].
    pub fn resize(&self) -> Result<Resized, Error> {
        let resized = self.writer.resize(&self.pin_dir, self.recent());
        crash::a_switch_begins();
        resized
    }

    /// Copies what began since: once before connections begin in the other tables, so that all source ports are known there
    /// that were drawn before the programs shared them, and once after that, before the programs of devices are replaced.
    pub fn resize_connections(&mut self, resized: &Resized) {
        self.writer.resize_connections(resized, self.recent());
    }

    /// Uses the other tables from now on, as all programs do, and installs there what the present ones had no room for.
    pub fn follow(&mut self, resized: Resized) -> Result<(), Error> {
        self.writer.follow(resized, self.recent());
        self.shared.replace(self.writer.tables().again(&self.pin_dir)?);
        self.followers.follow_tables();
        Ok(())
    }

    /// Installs `changes`. Returns everything that is not installed now, including what an earlier change asked for.
    pub fn apply(&mut self, changes: &Changes) -> Vec<NotInstalled> {
        self.followers.expect(changes, self.writer.node_addresses());
        self.writer.apply(changes);
        let gone = self.writer.take_gone();
        let (vips, nodes) = (self.writer.restricted_vips(), self.writer.node_addresses());
        let udp = changes.install.iter().any(|plan| plan.id.protocol == Protocol::Udp);
        self.followers.follow(gone, vips, nodes, changes.complete, udp);
        self.writer.not_installed()
    }

    /// Tries some of what is not installed again: the kernel may have had no memory for it. Returns what is not installed
    /// now.
    pub fn try_again(&mut self) -> Vec<NotInstalled> {
        self.writer.try_some_again();
        let gone = self.writer.take_gone();
        let (vips, nodes) = (self.writer.restricted_vips(), self.writer.node_addresses());
        self.followers.follow(gone, vips, nodes, false, false);
        self.writer.not_installed()
    }

    /// Everything that is not installed.
    pub fn not_installed(&self) -> Vec<NotInstalled> {
        self.writer.not_installed()
    }

    /// Which connected UDP sockets have an endpoint that is gone, and cannot be found.
    pub fn stale_problem(&self) -> Option<String> {
        self.followers.stale_problem()
    }

    /// Why clients of restricted LoadBalancer IPs, or namespaces to be passed by, cannot be found, if they cannot.
    pub fn namespaces_problem(&self) -> Option<String> {
        self.followers.namespaces_problem()
    }

    /// Call it when programs are attached, and when other devices of pods have some: who is to be passed by is looked for.
    pub fn look_at_namespaces(&mut self) {
        self.followers.look_at_namespaces();
    }

    /// The network namespaces that the socket programs pass by.
    pub fn passed_by(&self) -> Vec<PassedNamespace> {
        self.followers.passed_by()
    }

    /// The plans that are in effect, of the Services for which `wanted` says so.
    pub fn recall(&self, wanted: impl Fn(&ServicePortId) -> bool) -> Vec<ServicePlan> {
        self.writer.recall(wanted)
    }

    /// Gives back the room of what is gone.
    pub fn shrink(&mut self) {
        self.writer.shrink();
    }

    /// The tables, to look at.
    pub fn tables(&self) -> &Tables {
        self.writer.tables()
    }

    /// The installed Services.
    pub fn installed(&self) -> &InstalledPorts {
        self.writer.installed()
    }

    /// The north-south frontends among them.
    pub fn exposed(&self) -> &Exposed {
        self.writer.exposed()
    }
}

/// Makes the tables of another length the present ones, for whoever opens them: all programs use them.
pub fn commit_growth(pin_dir: &Path) -> Result<(), Error> {
    growth::commit(&abi_dir(pin_dir))
}

/// Removes tables of another length that no program uses.
pub fn abandon_growth(pin_dir: &Path) -> Result<(), Error> {
    growth::abandon(&abi_dir(pin_dir))
}
