//! What maps look like: those that are pinned, and those of this version's programs.

use std::{collections::HashMap, path::Path};

use object::{Object as _, ObjectSection as _};

use super::earlier::renamed;
use crate::dataplane::{
    Error, bpf,
    programs::load::{OBJECT, with_all_of_connections},
    raw_map::RawMap,
    tables::{
        layout::{Layout, Types},
        maps::{MAPS, MapSpec},
    },
};

/// What a map looks like.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Shape {
    /// `enum bpf_map_type`.
    pub(super) kind: u32,
    /// How many entries it has room for; 0 where the capacity says so.
    length: u32,
    pub(super) key: Layout,
    pub(super) value: Layout,
}

impl Shape {
    /// What of it is to be compared.
    fn of(self, spec: &MapSpec) -> Self {
        if spec.length.is_some() { Self { length: 0, ..self } } else { self }
    }
}

/// A pinned table, and what it is to look like.
#[derive(Debug)]
pub(super) struct Pinned {
    pub(super) name: &'static str,
    pub(super) map: RawMap,
    /// Nothing if the kernel does not know its types.
    pub(super) theirs: Option<Shape>,
    /// Nothing if the object does not tell them: of maps in maps.
    pub(super) ours: Option<Shape>,
}

/// The tables pinned in `dir` that this version cannot use as they are.
pub(super) fn changed(dir: &Path) -> Result<Vec<Pinned>, Error> {
    let ours = object_types()?;
    let (mut btf, mut all, mut changed) = (HashMap::new(), Vec::new(), Vec::new());
    for spec in &MAPS {
        let pin = dir.join(spec.name);
        if !pin.exists() {
            continue;
        }
        let map = RawMap::open(&pin)?;
        if map.info.btf != 0 && !btf.contains_key(&map.info.btf) {
            btf.insert(map.info.btf, bpf::btf_by_id(map.info.btf)?);
        }
        let found = Pinned {
            name: spec.name,
            theirs: btf
                .get(&map.info.btf)
                .and_then(|btf| of_map(spec.name, &map, btf))
                .map(|shape| shape.of(spec)),
            ours: in_object(&ours, spec.name).map(|shape| shape.of(spec)),
            map,
        };
        let is_same = match (&found.theirs, &found.ours) {
            (Some(theirs), Some(ours)) => theirs == ours,
            // Without types only sizes tell.
            _ => {
                (found.map.info.key_size as usize, found.map.info.value_size as usize)
                    == (spec.key, spec.value)
            }
        };
        if !is_same {
            changed.push(spec.name);
        }
        all.push(found);
    }
    let changed = with_all_of_connections(changed);
    Ok(all.into_iter().filter(|found| changed.contains(&found.name)).collect())
}

/// The types of our object.
fn object_types() -> Result<Types<'static>, Error> {
    let object =
        object::File::parse(OBJECT).map_err(|error| Error::Missing(format!("the object: {error}")))?;
    let section = object.section_by_name(".BTF").and_then(|section| section.data().ok());
    section.and_then(Types::of).ok_or_else(|| Error::Missing("the object has no BTF".to_owned()))
}

/// The shape of a map, by its BTF, with the present names of its fields.
fn of_map(name: &str, map: &RawMap, btf: &[u8]) -> Option<Shape> {
    let types = Types::of(btf)?;
    let layout = |id| Some(types.layout(id)?.renamed(&renamed(name)));
    let (key, value) = (layout(map.info.key_type)?, layout(map.info.value_type)?);
    Some(Shape { kind: map.info.kind, length: map.info.max_entries, key, value })
}

/// The shape that a map of our object has, by its definition (`.maps`): a structure of pointers.
fn in_object(types: &Types<'_>, name: &str) -> Option<Shape> {
    let definition = types.get(types.variable(name)?.target())?;
    let target = |wanted: &str| {
        let member = definition.members().flatten().find(|member| member.name == wanted)?;
        Some(types.get(member.kind)?.target())
    };
    // Numbers are the lengths of arrays there.
    let number = |wanted: &str| Some(types.get(target(wanted)?)?.elements()?.1);
    let (kind, length) = (number("type")?, number("max_entries").unwrap_or_default());
    Some(Shape { kind, length, key: types.layout(target("key")?)?, value: types.layout(target("value")?)? })
}

#[cfg(test)]
mod tests {
    use sidestep_tests::{identity::Identity, pins::PinDirectory};

    use super::*;
    use crate::dataplane::{Capacity, FlowOptions, Options, abi_dir, load};

    /// By their types, and not for want of them.
    #[test]
    fn tables_of_this_version_are_used_as_they_are() {
        let pins = PinDirectory::new(&Identity::new().to_string()).expect("bpffs");
        let options = Options {
            pin_dir: pins.path().to_owned(),
            // Nothing is attached.
            cgroup_root: "/nowhere".into(),
            capacity: Capacity::START,
            program_log: false,
            flows: FlowOptions::default(),
        };
        drop(load(&options).expect("the maps"));
        let dir = abi_dir(pins.path());
        let changed: Vec<_> =
            changed(&dir).expect("comparable").into_iter().map(|table| table.name).collect();
        assert_eq!(changed, [""; 0]);
        let types = object_types().expect("types");
        for spec in MAPS.iter().filter(|spec| spec.name != "GRACE") {
            let map = RawMap::open(&dir.join(spec.name)).expect("a map");
            let theirs = of_map(spec.name, &map, &bpf::btf_by_id(map.info.btf).expect("BTF"));
            let theirs = theirs.map(|shape| shape.of(spec));
            assert_eq!(theirs, in_object(&types, spec.name).map(|shape| shape.of(spec)), "{}", spec.name);
            let shape = theirs.unwrap_or_else(|| panic!("{} without types", spec.name));
            assert_eq!((shape.key.size, shape.value.size), (spec.key, spec.value), "{}", spec.name);
        }
    }
}
