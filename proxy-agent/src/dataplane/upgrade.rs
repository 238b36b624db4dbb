//! Tables of another version of Sidestep, whose layouts differ: an upgrade or a downgrade.
//!
//! As for a growth (`tables/growth`), new tables are made beside the present ones and programs loaded on them; then every
//! element is converted (`tables/layout`), the programs behind all links are replaced, and the new pins take the place of
//! the old ones. The programs of the other version note connections, clients and sockets until they are replaced, so these are
//! converted once more afterwards. A table that is as it was is used further by both.

use std::{
    collections::HashMap,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use aya::Ebpf;
use bytemuck::Pod;
use proxy_common::{FlowTags, FlowUses, Record, connection::buckets::SLOTS};

use super::{
    Error, Options, bpf, commit_growth,
    followers::stale::holders,
    node::system::uptime,
    programs::{
        attach::{attach, is_pinned},
        hooks::HOOKS,
        load::{OBJECT, load_replacing, with_all_of_connections},
    },
    raw_map::RawMap,
    tables::{
        crash,
        flow_moves::Destination,
        flow_table::FlowTable,
        growth,
        layout::{Conversion, Layout, Types},
        mapped::Mapped,
        maps::{MAPS, abi_dir, mapped},
        pinned::Tables,
    },
};

/// `enum bpf_map_type`.
mod kind {
    pub(super) const HASH: u32 = 1;
    pub(super) const ARRAY: u32 = 2;
    pub(super) const LRU_HASH: u32 = 9;
    pub(super) const LPM_TRIE: u32 = 11;
    pub(super) const SK_STORAGE: u32 = 24;
}

/// What a map looks like.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Shape {
    kind: u32,
    key: Layout,
    value: Layout,
}

/// A table of the other version, and how its elements become ours.
#[derive(Debug)]
struct Former {
    name: &'static str,
    map: RawMap,
    /// Whether it is still a map of the same kind.
    is_alike: bool,
    key: Conversion,
    value: Conversion,
    /// Whether keys have another layout.
    keys_differ: bool,
}

/// The tables of the other version that this one cannot use as they are.
#[derive(Debug)]
pub struct Upgrade {
    pin_dir: PathBuf,
    tables: Vec<Former>,
    /// When the first copy began, in seconds since boot.
    second: u32,
}

/// [`super::load`], with tables of another version converted, and what its programs served switched over. [`Upgrade::finish`]
/// when the programs at devices are ours, too.
pub fn load_or_upgrade(options: &Options) -> Result<(Ebpf, Option<Upgrade>), Error> {
    super::node::host::ensure_bpffs(&options.pin_dir)?;
    growth::settle(&abi_dir(&options.pin_dir))?;
    let Some(upgrade) = Upgrade::find(&options.pin_dir)? else {
        return Ok((super::load(options)?, None));
    };
    let names: Vec<&'static str> = upgrade.tables.iter().map(|table| table.name).collect();
    tracing::info!(tables = ?names, "the tables are of another version: converting them");
    let mut ebpf = load_replacing(options, &names)?;
    crash::a_change_begins();
    upgrade.convert(Pass::First)?;
    if HOOKS.iter().any(|hook| is_pinned(&options.pin_dir, hook)) {
        attach(&mut ebpf, options)?;
        upgrade.convert(Pass::Again)?;
    }
    commit_growth(&options.pin_dir)?;
    Ok((ebpf, Some(upgrade)))
}

/// Whether programs use the new tables already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Pass {
    First,
    Again,
}

impl Upgrade {
    /// Compares the pinned tables with ours. `None` if they are alike.
    fn find(pin_dir: &Path) -> Result<Option<Self>, Error> {
        let dir = abi_dir(pin_dir);
        if !dir.join("FRONTENDS").exists() {
            return Ok(None);
        }
        let object =
            aya_obj::Object::parse(OBJECT).map_err(|error| Error::Missing(format!("the object: {error}")))?;
        let ours = object.btf.map(|btf| btf.to_bytes()).unwrap_or_default();
        let ours = Types::of(&ours).ok_or_else(|| Error::Missing("the object has no BTF".to_owned()))?;
        let mut btf = HashMap::new();
        let (mut all, mut changed) = (Vec::new(), Vec::new());
        for spec in &MAPS {
            let pin = dir.join(spec.name);
            if !pin.exists() {
                continue;
            }
            let map = RawMap::open(&pin)?;
            if map.info.btf != 0 && !btf.contains_key(&map.info.btf) {
                btf.insert(map.info.btf, bpf::btf_by_id(map.info.btf)?);
            }
            let (theirs, ours) = (shape_of(&map, &btf), shape_in(&ours, spec.name));
            let sizes = (map.info.key_size as usize, map.info.value_size as usize);
            let is_same = match (&theirs, &ours) {
                (Some(theirs), Some(ours)) => theirs == ours,
                // Without types only sizes tell.
                _ => sizes == (spec.key, spec.value),
            };
            if !is_same {
                changed.push(spec.name);
            }
            all.push((spec.name, map, theirs, ours));
        }
        let changed = with_all_of_connections(changed);
        let tables: Vec<Former> = all
            .into_iter()
            .filter(|(name, ..)| changed.contains(name))
            .map(|(name, map, theirs, ours)| Former::new(name, map, theirs, ours))
            .collect();
        Ok((!tables.is_empty()).then(|| Self { pin_dir: pin_dir.to_owned(), tables, second: uptime() }))
    }

    /// Converts all elements; again those that programs write, where ours have not written them.
    fn convert(&self, pass: Pass) -> Result<(), Error> {
        let dir = abi_dir(&self.pin_dir);
        let mut of_sockets = Vec::new();
        for table in self.tables.iter().filter(|table| !table.is_of_connections()) {
            if !table.is_alike {
                tracing::warn!(table = table.name, "another kind of map: what it held is not taken over");
                continue;
            }
            let new = RawMap::open(&growth::next(&dir, table.name))?;
            match table.map.info.kind {
                kind::SK_STORAGE => of_sockets.push((table, new)),
                kind::ARRAY if pass == Pass::First => table.convert_array(&new)?,
                // The length of a prefix counts bits of the layout; the plan brings source ranges anew.
                kind::LPM_TRIE if table.keys_differ => {}
                kind::HASH | kind::LRU_HASH | kind::LPM_TRIE => table.convert_hash(&new, pass)?,
                _ => {}
            }
        }
        if !of_sockets.is_empty() {
            convert_sockets(&of_sockets);
        }
        if pass == Pass::First
            && let Some(flows) = self.connections()?
            && let Some(owners) = Tables::next_source_ports(&self.pin_dir)?
        {
            let tables = Tables::open_next(&self.pin_dir)?;
            let moved = Destination { flows: &tables.flows, owners: &owners }.take_from(&flows);
            tracing::info!(?moved, "converted connections");
        }
        Ok(())
    }

    /// Converts what the other version's programs at devices noted of connections until they were replaced by ours.
    pub fn finish(self, tables: &Tables) -> Result<(), Error> {
        if let Some(flows) = self.connections()? {
            let owners = Tables::source_ports(&self.pin_dir)?;
            let destination = Destination { flows: &tables.flows, owners: &owners };
            let moved = destination.take_from(&flows);
            destination.give_up_ended(&flows, self.second);
            tracing::debug!(?moved, "converted connections that began meanwhile");
        }
        Ok(())
    }

    /// The other version's connections, in our layout; `None` if their tables are used further.
    fn connections(&self) -> Result<Option<FlowTable>, Error> {
        let named = |name: &str| self.tables.iter().find(|table| table.name == name);
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

impl Former {
    fn new(name: &'static str, map: RawMap, theirs: Option<Shape>, ours: Option<Shape>) -> Self {
        let is_alike = matches!((&theirs, &ours), (Some(theirs), Some(ours)) if theirs.kind == ours.kind);
        let layouts = |of: fn(Shape) -> Layout| {
            (theirs.clone().map(of).unwrap_or_default(), ours.clone().map(of).unwrap_or_default())
        };
        let (old_key, new_key) = layouts(|shape| shape.key);
        let (old_value, new_value) = layouts(|shape| shape.value);
        Self {
            name,
            map,
            is_alike,
            key: Conversion::new(&old_key, &new_key),
            value: Conversion::new(&old_value, &new_value),
            keys_differ: old_key != new_key,
        }
    }

    fn is_of_connections(&self) -> bool {
        MAPS.iter().any(|map| map.name == self.name && map.of_connections)
    }

    fn convert_array(&self, new: &RawMap) -> Result<(), Error> {
        for index in 0..self.map.info.max_entries.min(new.info.max_entries) {
            let value = self.map.lookup(&index.to_ne_bytes())?.unwrap_or_default();
            // New arrays hold zeros.
            if value.iter().any(|byte| *byte != 0) {
                new.insert(&index.to_ne_bytes(), &self.value.apply(&value), 0)?;
            }
        }
        Ok(())
    }

    fn convert_hash(&self, new: &RawMap, pass: Pass) -> Result<(), Error> {
        let flags = if pass == Pass::First { 0 } else { RawMap::IF_MISSING };
        for (key, value) in self.map.elements()? {
            new.insert(&self.key.apply(&key), &self.value.apply(&value), flags)?;
        }
        Ok(())
    }

    /// An element of an array, in our layout.
    fn element<T: Pod>(&self, index: u32) -> Result<Option<T>, Error> {
        let value = self.map.lookup(&index.to_ne_bytes())?;
        Ok(value.and_then(|value| bytemuck::try_pod_read_unaligned(&self.value.apply(&value)).ok()))
    }
}

/// Converts what sockets have, where they have nothing in the new tables.
fn convert_sockets(tables: &[(&Former, RawMap)]) {
    holders::every_socket(|socket| {
        for (old, new) in tables {
            let converted = old.map.of_socket(socket.as_fd()).and_then(|found| match found {
                Some(value) => {
                    new.set_of_socket(socket.as_fd(), &old.value.apply(&value), RawMap::IF_MISSING)
                }
                None => Ok(()),
            });
            if let Err(error) = converted {
                tracing::debug!(%error, table = old.name, "cannot convert what a socket has");
            }
        }
    });
}

/// The shape of a pinned map; `None` if the kernel does not know its types.
fn shape_of(map: &RawMap, btf: &HashMap<u32, Vec<u8>>) -> Option<Shape> {
    let types = Types::of(btf.get(&map.info.btf)?)?;
    let (key, value) = (types.layout(map.info.key_type)?, types.layout(map.info.value_type)?);
    Some(Shape { kind: map.info.kind, key, value })
}

/// The shape that a map of our object has, by its definition (`.maps`).
fn shape_in(types: &Types<'_>, name: &str) -> Option<Shape> {
    let definition = types.get(types.variable(name)?.size_or_type)?;
    let target = |wanted: &str| {
        let member = definition.members().flatten().find(|member| member.name == wanted)?;
        Some(types.get(member.kind)?.size_or_type)
    };
    let (_, kind) = types.get(target("type")?)?.elements()?;
    Some(Shape { kind, key: types.layout(target("key")?)?, value: types.layout(target("value")?)? })
}
