//! The stages after the source: each change is planned, installed, served and reported in turn.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Instant};

use nix::ifaddrs::getifaddrs;
use tokio::sync::Notify;
use tracing::{info, warn};

use super::{
    change_log::ChangeLog, growth::Growth, missing_node::NoNode, neighbours::Neighbours, report::Report,
    run_dir::RunDir,
};
use crate::{
    announce::Announcer,
    dataplane::{self, Dataplane, Interfaces, NotInstalled, Options, Pins, ReservedPorts, TakingOver},
    memory,
    model::{Event, Problem},
    plan::{Changes, Family, Planner, is_api_server},
    serve::{Applied, Serve},
    source::Batch,
};

/// The stages after the source, and the report about them.
pub(super) struct Agent {
    pub(super) planner: Planner,
    pub(super) dataplane: Dataplane,
    pub(super) interfaces: Interfaces,
    pub(super) ebpf: aya::Ebpf,
    /// Locked as long as this agent writes the tables.
    pub(super) pins: Pins,
    pub(super) options: Options,
    pub(super) run_dir: RunDir,
    pub(super) report: Report,
    pub(super) growth: Growth,
    /// What the tables had no room for.
    pub(super) not_installed: Vec<NotInstalled>,
    /// Problems of the configuration.
    pub(super) misconfigured: Vec<Problem>,
    pub(super) reserved_ports: ReservedPorts,
    pub(super) no_node: NoNode,
    pub(super) neighbours: Neighbours,
    pub(super) serve: Serve,
    pub(super) announcer: Announcer,
    /// The takeover from kube-proxy, where it is wanted.
    pub(super) taking_over: Option<TakingOver>,
    /// How many Service ports have changed since memory was given back.
    pub(super) untidy: usize,
}

/// So many changed Service ports leave memory to give back.
const BURST: usize = 256;

impl Agent {
    /// Notified when there are too many connections for their table.
    pub(super) fn crowded(&self) -> Arc<Notify> {
        self.dataplane.crowded()
    }

    /// The node's name.
    pub(super) fn node(&self) -> &str {
        &self.report.node
    }

    /// Takes all waiting events and follows them.
    pub(super) fn take(&mut self, batches: &mut Vec<Batch>) -> anyhow::Result<()> {
        self.serve.queued(batches.iter().flatten());
        self.recall(batches.iter().flatten());
        let changes = self.planner.apply(batches.drain(..).flatten());
        self.follow(changes)
    }

    /// Before the first plan: recalls what is installed of what the source cannot read.
    fn recall<'a>(&mut self, events: impl Iterator<Item = &'a Event>) {
        if self.planner.is_synced() {
            return;
        }
        for event in events {
            if let Event::Unread(unread) = event {
                for plan in
                    self.dataplane.recall(|id| unread.concerns(&id.service) && !is_api_server(&id.service))
                {
                    self.planner.recall(plan);
                }
            }
        }
    }

    /// Installs changes, attaches the programs once everything is installed, and reports.
    fn follow(&mut self, mut changes: Changes) -> anyhow::Result<()> {
        let began = Instant::now();
        let mut families: BTreeSet<Family> = changes.families().collect();
        while changes.more {
            self.install(&changes);
            changes = self.planner.next_part();
            families.extend(changes.families());
        }
        self.install(&changes);
        if changes.complete || self.report.synced {
            self.expose();
        }
        if changes.complete {
            self.begin_to_serve()?;
        } else if self.report.synced && self.interfaces.set_node(self.planner.node_addresses()) {
            self.look_at_interfaces(Interfaces::look);
        }
        self.write_report();
        self.serve.applied(Applied {
            changes: &changes,
            families,
            took: began.elapsed(),
            tally: self.planner.take_tally(),
            node_eligible: self.planner.is_node_eligible(),
            health_checks: self.planner.health_checks(),
            problems: self.report.problems.len(),
            synced: self.report.synced,
        });
        if changes.complete {
            drop(changes);
            memory::give_back();
        }
        Ok(())
    }

    /// Passes the north-south frontends on to the node's side.
    fn expose(&mut self) {
        let exposed = self.dataplane.exposed();
        self.reserved_ports.set_node_ports(exposed.node_ports(), Instant::now());
        self.interfaces.set_served(exposed.families());
    }

    /// Attaches the programs once everything is installed for the first time; before that they would treat Services as
    /// ordinary addresses.
    fn begin_to_serve(&mut self) -> anyhow::Result<()> {
        dataplane::attach(&mut self.ebpf, &self.options)?;
        self.report.synced = true;
        self.interfaces.set_node(self.planner.node_addresses());
        self.interfaces.look(&mut self.ebpf);
        self.dataplane.look_at_namespaces();
        info!(services = self.dataplane.installed().len(), "in sync: all Services are installed");
        self.give_room_back();
        Ok(())
    }

    fn install(&mut self, changes: &Changes) {
        if changes.is_empty() {
            return;
        }
        let parts = u32::try_from(self.planner.parts_left()).unwrap_or(u32::MAX);
        self.make_room(changes, parts);
        self.untidy += changes.install.len() + changes.remove.len();
        let log = ChangeLog::of(changes, &self.dataplane);
        self.not_installed = self.dataplane.apply(changes);
        self.make_room_for_refused();
        if let Some(log) = log {
            log.tell(changes);
        }
    }

    /// Follows devices, addresses and routes: what is new, or everything now and then.
    pub(super) fn look_at_network(&mut self, has_news: bool) -> anyhow::Result<()> {
        self.look_at_addresses()?;
        if self.report.synced {
            self.look_at_interfaces(if has_news { Interfaces::look_for_news } else { Interfaces::look });
            self.write_report();
        }
        Ok(())
    }

    /// When [`Self::keep_reservation`] has something to do.
    pub(super) fn reservation_due(&self) -> Instant {
        self.reserved_ports.due()
    }

    /// Reserves new NodePorts, and restores reservations that others removed.
    pub(super) fn keep_reservation(&mut self) {
        self.reserved_ports.keep(Instant::now());
        self.write_report();
    }

    /// Checks what has no notification: the pins, room in the tables, the node's addresses, devices that could not be used,
    /// and what works beside us.
    pub(super) fn look_around(&mut self) -> anyhow::Result<()> {
        self.pins.look();
        if !self.not_installed.is_empty() {
            self.not_installed = self.dataplane.try_again();
        }
        self.look_at_addresses()?;
        self.try_interfaces_again();
        self.try_to_grow_again();
        self.give_room_back();
        self.take_over();
        if self.neighbours.look_again(&self.options, Instant::now()) {
            self.write_report();
        }
        self.tidy_up();
        Ok(())
    }

    /// Gives back what many changes took.
    fn tidy_up(&mut self) {
        if self.untidy >= BURST {
            self.untidy = 0;
            self.planner.shrink();
            self.dataplane.shrink();
            memory::give_back();
        }
    }

    /// Checks devices again if one has a problem, or if a change was looked at in haste.
    fn try_interfaces_again(&mut self) {
        let is_due = !self.interfaces.problems().is_empty() || self.interfaces.is_unchecked();
        if self.report.synced && is_due {
            self.look_at_interfaces(Interfaces::look);
            self.write_report();
        }
    }

    /// Begins the takeover from kube-proxy once there is somebody to serve what it served, and reports how far it is.
    fn take_over(&mut self) {
        let Some(taking_over) = &mut self.taking_over else { return };
        if self.report.synced && !self.report.devices.is_empty() {
            taking_over.begin();
        }
        let progress = Some(taking_over.progress());
        if self.report.takeover != progress {
            self.report.takeover = progress;
            self.write_report();
        }
    }

    /// Attaches the packet programs where they are missing, and pins them: where pins belong.
    fn look_at_interfaces(&mut self, look: fn(&mut Interfaces, &mut aya::Ebpf) -> bool) {
        if self.pins.look() && look(&mut self.interfaces, &mut self.ebpf) {
            self.dataplane.look_at_namespaces();
        }
    }

    /// Follows the addresses of the node's interfaces.
    fn look_at_addresses(&mut self) -> anyhow::Result<()> {
        match local_addresses() {
            Ok(addresses) => {
                let changes = self.planner.set_local_addresses(addresses);
                self.follow(changes)
            }
            Err(error) => {
                warn!(%error, "cannot list the node's addresses; the last known ones stay");
                Ok(())
            }
        }
    }
}

/// The addresses of the node's interfaces; those of kube-ipvs0 stand for Services.
fn local_addresses() -> nix::Result<Vec<IpAddr>> {
    let addresses = getifaddrs()?
        .filter(|interface| interface.interface_name != "kube-ipvs0")
        .filter_map(|interface| dataplane::ip_of(&interface));
    Ok(addresses.filter(|address| !address.is_loopback()).collect())
}
