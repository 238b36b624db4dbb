//! The one writer of the maps: the maps, what is installed in them, and what is free.
//!
//! How a change gets there is `install` and the files that it is put together from, which add their steps to
//! [`Writer`].

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    ops::Range,
    path::Path,
};

use proxy_common::{Address, AddressBits, FrontendKey, Port, Protocol};

use super::{
    adopt::{Adopted, adopt},
    bitmaps::{AddressFilter, NodePorts},
    exposed::Exposed,
    grace::Grace,
    growth,
    ids::Ids,
    installed::InstalledPorts,
    maps::abi_dir,
    not_installed::NotInstalled,
    pinned::Tables,
    ranges::Ranges,
    refused::Refused,
    retired::Retired,
    slab::Slab,
};
use crate::{
    dataplane::Error,
    plan::{ServicePlan, ServicePortId},
};

/// The maps and what is free in them. There is only one writer, since the agent holds a lock.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(super) tables: Tables,
    pub(super) grace: Grace,
    pub(super) slots: Slab,
    pub(super) ids: Ids,
    pub(super) indexes: Ids,
    pub(super) installed: InstalledPorts,
    /// What of it the whole plan that comes, or came last, does not name so far.
    pub(super) unplanned: HashSet<ServicePortId>,
    /// How many frontends lead to them.
    pub(super) frontends: usize,
    /// What ADDRESSES held when it was opened, until the first whole plan is installed.
    pub(super) found_addresses: Option<HashMap<Address, AddressBits>>,
    /// Addresses that are the node's.
    pub(super) node_addresses: BTreeSet<Address>,
    /// Frontends that lead to nothing that has a name.
    pub(super) orphans: HashSet<FrontendKey>,
    /// Whether more parts of the whole plan are to come.
    pub(super) in_parts: bool,
    /// What loses frontends, and waits for the end of the change, or of the whole plan.
    pub(super) losers: BTreeMap<ServicePortId, ServicePlan>,
    /// Slots that records lead to, beside their Services' blocks, until the first whole plan is installed.
    pub(super) held: Vec<(ServicePortId, Range<u32>)>,
    pub(super) refused: Refused,
    pub(super) exposed: Exposed,
    pub(super) ranges: Ranges,
    pub(super) filter: AddressFilter,
    pub(super) node_ports: NodePorts,
    /// Endpoints that Service ports lost with the present change.
    pub(super) gone: Vec<GoneEndpoint>,
}

/// An endpoint that a Service port had, and does not have any more.
pub(crate) type GoneEndpoint = (Protocol, Address, Port);

impl Writer {
    /// Opens the tables below `pin_dir`, and takes over what they hold.
    pub(crate) fn open(pin_dir: &Path) -> Result<Self, Error> {
        growth::settle(&abi_dir(pin_dir))?;
        let tables = Tables::open(pin_dir)?;
        let mut grace = Grace::new(Tables::grace(pin_dir)?)?;
        let Adopted { installed, orphans, addresses, indexes, ids, restrictions, former_sets, held } =
            adopt(&tables)?;
        // What nothing leads to may still be read by a program that began before the last agent ended.
        grace.pass();
        let (mut exposed, mut frontends) = (Exposed::default(), 0);
        let (mut unplanned, mut blocks) = (HashSet::new(), Vec::new());
        for (id, found) in installed.iter() {
            exposed.add(&found.frontends);
            frontends += found.frontends.len();
            blocks.push(found.block);
            unplanned.insert(id);
        }
        blocks.extend(held.iter().map(|(_, run)| run.clone()));
        let mut writer = Self {
            slots: Slab::new(tables.endpoints.len(), blocks),
            ids: Ids::new(tables.states.len(), ids),
            indexes: Ids::new(tables.services.len(), indexes),
            tables,
            grace,
            installed,
            unplanned,
            frontends,
            node_addresses: addresses
                .iter()
                .filter(|(_, bits)| bits.has(AddressBits::NODE))
                .map(|(address, _)| *address)
                .collect(),
            found_addresses: Some(addresses),
            orphans: orphans.into_iter().collect(),
            in_parts: false,
            losers: BTreeMap::new(),
            held,
            refused: Refused::default(),
            exposed,
            ranges: Ranges::of(restrictions),
            filter: Tables::address_filter(pin_dir)?,
            node_ports: Tables::node_ports(pin_dir)?,
            gone: Vec::new(),
        };
        writer.adopt_node_ports();
        writer.reuse(Retired { sets: former_sets, ..Retired::default() });
        Ok(writer)
    }

    /// Makes NODE_PORTS what FRONTENDS says: an agent that was killed may have left it before or after that.
    fn adopt_node_ports(&self) {
        let frontends = self.tables.frontends.keys().filter_map(Result::ok);
        let node_ports = frontends.filter(|key| key.any_address != 0 && key.protocol == Protocol::Udp as u8);
        self.node_ports.replace(node_ports.map(|key| key.port));
    }

    /// The tables, to look at.
    pub(crate) fn tables(&self) -> &Tables {
        &self.tables
    }

    /// The installed Services.
    pub(crate) fn installed(&self) -> &InstalledPorts {
        &self.installed
    }

    /// The north-south frontends among them.
    pub(crate) fn exposed(&self) -> &Exposed {
        &self.exposed
    }

    /// Addresses that are the node's.
    pub(crate) fn node_addresses(&self) -> &BTreeSet<Address> {
        &self.node_addresses
    }

    /// A restricted LoadBalancer IP of each family, if there is one.
    pub(crate) fn restricted_vips(&self) -> [Option<Address>; 2] {
        self.ranges.vips()
    }

    /// Gives back the room of what is gone.
    pub(crate) fn shrink(&mut self) {
        self.installed.shrink();
    }

    /// The endpoints that went with the last change.
    pub(crate) fn take_gone(&mut self) -> Vec<GoneEndpoint> {
        std::mem::take(&mut self.gone)
    }

    /// Everything that the plan asks for and that is not installed.
    pub(crate) fn not_installed(&self) -> Vec<NotInstalled> {
        self.refused.list()
    }

    /// Takes back what no program can be reading.
    pub(super) fn reuse(&mut self, freed: Retired) {
        let Retired { slots, ids, services, sets } = freed;
        // Before an index is used again.
        for former in &sets {
            self.ranges.delete(&mut self.tables.source_ranges, former);
        }
        for run in slots {
            self.slots.give(run);
        }
        for id in ids {
            self.ids.give(id);
        }
        for index in services {
            self.indexes.give(index);
        }
    }
}
