//! Tables of another version of Sidestep, whose layouts differ: an upgrade or a downgrade.
//!
//! As for a growth (`tables/growth`), new tables are made beside the present ones and programs loaded on them; then every
//! element is converted (`tables/layout`), the new pins take the place of the old ones, and the programs behind all links are
//! replaced. The programs of the other version note connections, clients and sockets until they are replaced, so these are
//! converted once more afterwards, by the next agent if this one is killed. A table that is as it was is used further by both.
//!
//! `shape` compares layouts, `former` converts a table, `earlier` knows what earlier versions called otherwise.

mod earlier;
mod former;
mod shape;

use std::path::{Path, PathBuf};

use aya::Ebpf;
use proxy_common::{FlowTags, FlowUses, Record, connection::buckets::SLOTS};

use self::former::{Former, Pass, convert_sockets};
use super::{
    Error, Options,
    node::{host::ensure_bpffs, system::uptime},
    programs::{
        attach::{attach, is_pinned},
        hooks::HOOKS,
        load::{load, load_replacing, with_all_of_connections},
    },
    raw_map::RawMap,
    tables::{
        crash,
        flow_moves::Destination,
        flow_table::{FlowTable, Recent},
        growth,
        mapped::Mapped,
        maps::{abi_dir, mapped},
        pinned::Tables,
    },
};

/// The tables of the other version that this one cannot use as they are.
#[derive(Debug)]
pub struct Upgrade {
    pin_dir: PathBuf,
    tables: Vec<Former>,
    /// Whether Services can be served from what is converted. Otherwise the other version's programs go on with its tables
    /// until the first plan is installed.
    serves: bool,
    /// When the first copy began, in seconds since boot; 0 if an earlier agent made it.
    second: u32,
}

/// [`load`], with tables of another version converted, and what its programs serve for sockets switched over.
/// [`Upgrade::finish`] when the programs at devices are ours, too. Nothing is switched over, and there is nothing to finish,
/// where Services cannot be served from what was converted.
pub fn load_or_upgrade(options: &Options) -> Result<(Ebpf, Option<Upgrade>), Error> {
    let dir = abi_dir(&options.pin_dir);
    ensure_bpffs(&options.pin_dir)?;
    growth::settle(&dir)?;
    let Some(upgrade) = Upgrade::find(&options.pin_dir)? else {
        let mut ebpf = load(options)?;
        let unfinished = Upgrade::unfinished(&options.pin_dir)?;
        if let Some(upgrade) = &unfinished {
            tracing::info!("an agent was killed before it had taken over all from another version: going on");
            crash::a_switch_begins();
            upgrade.switch(&mut ebpf, options)?;
        }
        return Ok((ebpf, unfinished));
    };
    growth::forget_former(&dir)?;
    let names: Vec<&'static str> = upgrade.tables.iter().map(|table| table.spec.name).collect();
    tracing::info!(tables = ?names, "the tables are of another version: converting them");
    let mut ebpf = load_replacing(options, &names)?;
    crash::a_change_begins();
    upgrade.convert()?;
    crash::a_switch_begins();
    if upgrade.serves {
        growth::keep_former(&dir, &names)?;
    }
    growth::commit(&dir)?;
    if upgrade.serves {
        upgrade.switch(&mut ebpf, options)?;
    }
    Ok((ebpf, Some(upgrade).filter(|upgrade| upgrade.serves)))
}

/// The tables that follow are as long as those before them: all connections have room there.
const RECENT: Recent = Recent { now: 0, seconds: u8::MAX };

/// What Services are served from, and the plan brings anew.
const OF_SERVICES: [&str; 11] = [
    "FRONTENDS",
    "FRONTEND_LINES",
    "ADDRESSES",
    "SERVICES",
    "ENDPOINTS",
    "ENDPOINT_STATE",
    "SOURCE_RANGES",
    "CLIENTS",
    "ADDRESS_FILTER",
    "NODE_PORTS",
    "NAMES",
];

impl Upgrade {
    /// Compares the pinned tables with ours. `None` if they are alike.
    fn find(pin_dir: &Path) -> Result<Option<Self>, Error> {
        let dir = abi_dir(pin_dir);
        if !dir.join("FRONTENDS").exists() {
            return Ok(None);
        }
        let pinned = shape::pinned(|name| dir.join(name))?;
        let all: Vec<(bool, Former)> =
            pinned.into_iter().map(|found| (found.is_ours(), Former::new(found))).collect();
        let others = || all.iter().filter(|(is_ours, _)| !is_ours).map(|(_, table)| table);
        let serves = others().all(|table| table.can_convert() || !OF_SERVICES.contains(&table.spec.name));
        let mut changed: Vec<&'static str> = others().map(|table| table.spec.name).collect();
        if !serves {
            // Programs that go on with the old ones must not see half of the new ones.
            changed.extend(OF_SERVICES);
        }
        let changed = with_all_of_connections(changed);
        let tables = all.into_iter().map(|(_, table)| table);
        let tables: Vec<Former> = tables.filter(|table| changed.contains(&table.spec.name)).collect();
        let pin_dir = pin_dir.to_owned();
        Ok((!tables.is_empty()).then(|| Self { pin_dir, tables, serves, second: uptime() }))
    }

    /// What a killed agent had converted, but had not taken over to the last.
    fn unfinished(pin_dir: &Path) -> Result<Option<Self>, Error> {
        let dir = abi_dir(pin_dir);
        let pinned = shape::pinned(|name| growth::former(&dir, name))?;
        let tables: Vec<Former> = pinned.into_iter().map(Former::new).collect();
        let pin_dir = pin_dir.to_owned();
        Ok((!tables.is_empty()).then(|| Self { pin_dir, tables, serves: true, second: 0 }))
    }

    /// Replaces the programs of sockets, and converts what the other version's have noted since.
    fn switch(&self, ebpf: &mut Ebpf, options: &Options) -> Result<(), Error> {
        if HOOKS.iter().any(|hook| is_pinned(&options.pin_dir, hook)) {
            attach(ebpf, options)?;
            let dir = abi_dir(&self.pin_dir);
            let written = |table: &&Former| !OF_SERVICES.contains(&table.spec.name);
            self.convert_elements(Pass::Again, written, |name| dir.join(name))?;
        }
        Ok(())
    }

    /// Converts all elements of those tables that are `wanted`, but for connections.
    fn convert_elements(
        &self,
        pass: Pass,
        wanted: impl Fn(&&Former) -> bool,
        place: impl Fn(&str) -> PathBuf,
    ) -> Result<(), Error> {
        let mut of_sockets = Vec::new();
        for table in self.tables.iter().filter(|table| !table.spec.of_connections).filter(wanted) {
            let new = RawMap::open(&place(table.spec.name))?;
            if table.is_of_sockets() {
                of_sockets.push((table, new));
            } else {
                table.convert(&new, pass)?;
            }
        }
        convert_sockets(&of_sockets);
        Ok(())
    }

    /// Fills the next tables.
    fn convert(&self) -> Result<(), Error> {
        let dir = abi_dir(&self.pin_dir);
        self.convert_elements(Pass::First, |_| true, |name| growth::next(&dir, name))?;
        let tables = Tables::open_next(&self.pin_dir)?;
        let frontends = tables.frontends.iter().collect::<Result<_, _>>().map_err(Error::map("FRONTENDS"))?;
        tables.lines.adopt(&frontends, &tables.services);
        if let Some(flows) = self.connections()?
            && let Some(owners) = Tables::next_source_ports(&self.pin_dir)?
        {
            let moved = Destination { flows: &tables.flows, owners: &owners }.take_from(&flows, RECENT);
            tracing::info!(connections = moved.moved, without_room = moved.lost, "converted connections");
        }
        Ok(())
    }

    /// Converts what the other version's programs at devices noted of connections until they were replaced by ours: at once
    /// for the answers, and what a program was about to write then.
    pub fn finish(self, tables: &Tables) -> Result<(), Error> {
        self.take_connections(tables)?;
        growth::forget_former(&abi_dir(&self.pin_dir))
    }

    fn take_connections(&self, tables: &Tables) -> Result<(), Error> {
        for _ in 0..2 {
            let Some(flows) = self.connections()? else { return Ok(()) };
            let owners = Tables::source_ports(&self.pin_dir)?;
            let destination = Destination { flows: &tables.flows, owners: &owners };
            let moved = destination.take_late_from(&flows, RECENT);
            destination.give_up_ended(&flows, self.second);
            tracing::debug!(connections = moved.moved, "converted connections that began meanwhile");
        }
        Ok(())
    }

    /// The other version's connections, in our layout; `None` if their tables are used further.
    fn connections(&self) -> Result<Option<FlowTable>, Error> {
        let named = |name: &str| self.tables.iter().find(|table| table.spec.name == name);
        let (Some(records), Some(tags), Some(uses)) =
            (named("FLOWS"), named("FLOW_TAGS"), named("FLOW_USES"))
        else {
            return Ok(None);
        };
        let buckets = tags.map.info.max_entries;
        let (all_tags, all_uses) =
            (Mapped::<FlowTags>::private(buckets)?, Mapped::<FlowUses>::private(buckets)?);
        let all_records = Mapped::<Record>::private(buckets * SLOTS)?;
        for bucket in 0..buckets {
            let Some(found) =
                tags.element::<FlowTags>(bucket)?.filter(|found| found.tags != [0; SLOTS as usize])
            else {
                continue;
            };
            all_tags.store(bucket, &found);
            all_uses.store(bucket, &uses.element(bucket)?.unwrap_or_default());
            for slot in (0..SLOTS).filter(|slot| found.tags[*slot as usize] != 0) {
                let index = bucket * SLOTS + slot;
                if let Some(record) = records.element::<Record>(index)? {
                    // The checks depend on the layout.
                    all_records.store(index, &record.sealed());
                }
            }
        }
        let seed = mapped(&abi_dir(&self.pin_dir), "FLOW_SEED")?;
        Ok(Some(FlowTable::new(all_records, all_tags, all_uses, &seed)))
    }
}
