//! Moves the writer to tables of another length: the copy, and what programs counted meanwhile.

use std::{collections::BTreeMap, io, path::Path, sync::atomic::Ordering};

use aya::maps::{HashMap, MapData, MapError};
use proxy_common::{
    PortOwners, ServiceCounters, ServiceRefusals,
    counters::{SHARDS, shard},
};

use super::{
    crash, flow_moves::Destination, flow_table::Recent, generations, mapped::Mapped, names, pinned::Tables,
    writer::Writer,
};
use crate::dataplane::Error;

/// `BPF_NOEXIST`.
const IF_MISSING: u64 = 1;

/// Tables of another length that hold what the present ones do.
#[derive(Debug)]
pub struct Resized {
    tables: Tables,
    /// What the present ones had counted.
    copied: Counted,
    /// SOURCE_PORTS, where connections move.
    source_ports: Option<Mapped<PortOwners>>,
    /// When the copy began, in seconds since boot.
    second: u32,
}

impl Resized {
    /// Whether connections move, too.
    pub fn has_connections(&self) -> bool {
        self.source_ports.is_some()
    }

    /// Where connections move, if they do.
    fn destination(&self) -> Option<Destination<'_>> {
        let owners = self.source_ports.as_ref()?;
        Some(Destination { flows: &self.tables.flows, owners })
    }
}

impl Writer {
    /// Copies everything to the tables that programs were loaded on beside these, at `recent.now`. Nothing may be
    /// installed until [`Writer::follow`].
    pub(crate) fn resize(&self, pin_dir: &Path, recent: Recent) -> Result<Resized, Error> {
        let (from, mut to) = (&self.tables, self.tables.next(pin_dir)?);
        let mut copied = Counted::default();
        if to.services.len() != from.services.len() {
            generations::copy(&from.services, &to.services);
            copied = Counted::of(from);
            copied.add_to(&to);
            for (id, found) in self.installed.iter() {
                crash::point();
                to.names.insert(found.index, names::to_table(&id), 0).map_err(Error::map("NAMES"))?;
            }
        }
        if to.endpoints.len() != from.endpoints.len() {
            to.endpoints.copy_from(&from.endpoints);
            generations::copy(&from.states, &to.states);
        }
        if to.frontends_room() != from.frontends_room() {
            let frontends = copy(&from.frontends, &mut to.frontends, 0).map_err(Error::map("FRONTENDS"))?;
            to.lines.adopt(&frontends.into_iter().collect(), &to.services);
            copy(&from.addresses, &mut to.addresses, 0).map_err(Error::map("ADDRESSES"))?;
        }
        // A shorter one follows when nobody has affinity.
        if to.affinities_room() > from.affinities_room() {
            copy(&from.affinities, &mut to.affinities, 0).map_err(Error::map("AFFINITY"))?;
        }
        let source_ports = Tables::next_source_ports(pin_dir)?;
        let resized = Resized { tables: to, copied, source_ports, second: recent.now };
        if let Some(moved) = resized.destination().map(|to| to.take_from(&from.flows, recent)) {
            tracing::debug!(?moved, "moved connections");
        }
        Ok(resized)
    }

    /// Moves connections that began since the copy, also those of programs that are running now.
    pub(crate) fn resize_connections(&mut self, resized: &Resized, recent: Recent) {
        let freed = self.grace.pass();
        self.reuse(freed);
        if let Some(to) = resized.destination() {
            to.take_from(&self.tables.flows, recent);
        }
    }

    /// Uses these tables from now on, as all programs do. Waits for those that still read the old ones, for what they
    /// counted and remembered.
    pub(crate) fn follow(&mut self, resized: Resized, recent: Recent) {
        // At once, for their answers: those that began before the programs of all devices were replaced.
        let take = |to: Destination<'_>| to.take_late_from(&self.tables.flows, recent);
        let late = resized.destination().map(take);
        let Resized { tables, copied, source_ports, second } = resized;
        let before = std::mem::replace(&mut self.tables, tables);
        self.slots.resize(self.tables.endpoints.len());
        self.ids.resize(self.tables.states.len());
        self.indexes.resize(self.tables.services.len());
        let freed = self.grace.pass();
        self.reuse(freed);
        if let (Some(late), Some(owners)) = (late, source_ports) {
            let destination = Destination { flows: &self.tables.flows, owners: &owners };
            let last = destination.take_late_from(&before.flows, recent);
            destination.give_up_ended(&before.flows, second);
            if late.lost + last.lost > 0 {
                tracing::warn!(
                    connections = late.lost + last.lost,
                    "the other table has no room for connections"
                );
            }
            tracing::debug!(late = late.moved, last = last.moved, "moved connections that began meanwhile");
        }
        if before.services.len() != self.tables.services.len() {
            Counted::of(&before).since(&copied).add_to(&self.tables);
        }
        if before.affinities_room() < self.tables.affinities_room()
            && let Err(error) = copy(&before.affinities, &mut self.tables.affinities, IF_MISSING)
        {
            tracing::debug!(%error, "cannot copy the affinity of the last clients");
        }
        if !self.refused.is_empty() && !self.in_parts {
            self.try_all_again();
        }
    }
}

/// Copies the entries of a hash, and returns them. With [`IF_MISSING`] those that are there stay.
fn copy<K: aya::Pod, V: aya::Pod>(
    from: &HashMap<MapData, K, V>,
    to: &mut HashMap<MapData, K, V>,
    flags: u64,
) -> Result<Vec<(K, V)>, MapError> {
    let entries: Vec<(K, V)> = from.iter().collect::<Result<_, _>>()?;
    for (key, value) in &entries {
        crash::point();
        match to.insert(key, value, flags) {
            Err(MapError::SyscallError(call))
                if flags == IF_MISSING && call.io_error.kind() == io::ErrorKind::AlreadyExists => {}
            inserted => inserted?,
        }
    }
    Ok(entries)
}

/// Words of COUNTERS and REFUSALS that are not 0. Programs add to them at any moment.
#[derive(Debug, Default)]
struct Counted {
    /// By shard, service and word.
    connections: BTreeMap<(u32, u32, usize), u64>,
    /// By service and word.
    refusals: BTreeMap<(u32, usize), u64>,
}

impl Counted {
    fn of(tables: &Tables) -> Self {
        let mut counted = Self::default();
        let services = tables.services.len();
        for service in 0..services {
            for cpu in 0..SHARDS {
                for word in 0..Mapped::<ServiceCounters>::WORDS {
                    let value =
                        tables.counters.word(shard(cpu, service, services), word).load(Ordering::Relaxed);
                    if value != 0 {
                        counted.connections.insert((cpu, service, word), value);
                    }
                }
            }
            for word in 0..Mapped::<ServiceRefusals>::WORDS {
                let value = tables.refusals.word(service, word).load(Ordering::Relaxed);
                if value != 0 {
                    counted.refusals.insert((service, word), value);
                }
            }
        }
        counted
    }

    /// What came since then.
    fn since(mut self, then: &Self) -> Self {
        for (place, value) in &mut self.connections {
            *value = value.saturating_sub(then.connections.get(place).copied().unwrap_or(0));
        }
        for (place, value) in &mut self.refusals {
            *value = value.saturating_sub(then.refusals.get(place).copied().unwrap_or(0));
        }
        self
    }

    /// Adds it to those of services that `tables` have.
    fn add_to(&self, tables: &Tables) {
        let services = tables.services.len();
        for ((cpu, service, word), value) in
            self.connections.iter().filter(|((_, service, _), _)| *service < services)
        {
            tables.counters.word(shard(*cpu, *service, services), *word).fetch_add(*value, Ordering::Relaxed);
        }
        for ((service, word), value) in self.refusals.iter().filter(|((service, _), _)| *service < services) {
            tables.refusals.word(*service, *word).fetch_add(*value, Ordering::Relaxed);
        }
    }
}
