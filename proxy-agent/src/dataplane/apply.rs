//! [`Dataplane`]: the maps, and their followers.

use std::collections::HashMap;

use proxy_common::Protocol;

use super::{
    Error, Options,
    followers::Followers,
    tables::{
        exposed::Exposed, installed::Installed, not_installed::NotInstalled, pinned::Tables, writer::Writer,
    },
};
use crate::plan::{Changes, ServicePlan, ServicePortId};

/// The kernel's tables, with one writer, and its followers.
#[derive(Debug)]
pub struct Dataplane {
    writer: Writer,
    followers: Followers,
}

impl Dataplane {
    /// Opens the tables that [`super::load`] made or found, adopts their content, and starts the followers.
    pub fn open(options: &Options) -> Result<Self, Error> {
        Ok(Self {
            writer: Writer::open(&options.pin_dir)?,
            followers: Followers::start(&options.pin_dir, options.flows.timeouts)?,
        })
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

    /// Which connected UDP sockets have an endpoint that is gone, and cannot be found.
    pub fn stale_problem(&self) -> Option<String> {
        self.followers.stale_problem()
    }

    /// Why clients of restricted LoadBalancer IPs cannot be identified, if they cannot.
    pub fn clients_problem(&self) -> Option<String> {
        self.followers.clients_problem()
    }

    /// The plans that are in effect, of the Services for which `wanted` says so.
    pub fn recall(&self, wanted: impl Fn(&ServicePortId) -> bool) -> Vec<ServicePlan> {
        self.writer.recall(wanted)
    }

    /// The tables, to look at.
    pub fn tables(&self) -> &Tables {
        self.writer.tables()
    }

    /// The installed Services.
    pub fn installed(&self) -> &HashMap<ServicePortId, Installed> {
        self.writer.installed()
    }

    /// The north-south frontends among them.
    pub fn exposed(&self) -> &Exposed {
        self.writer.exposed()
    }
}
