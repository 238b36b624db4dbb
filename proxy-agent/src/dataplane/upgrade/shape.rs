//! What maps look like: those that are pinned, and those of this version's programs.

use std::{collections::HashMap, path::PathBuf};

use object::{Object as _, ObjectSection as _};

use super::earlier::renamed;
use crate::dataplane::{
    Error, bpf,
    programs::load::OBJECT,
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
    pub(super) spec: &'static MapSpec,
    pub(super) map: RawMap,
    /// Nothing if the kernel does not know its types.
    pub(super) theirs: Option<Shape>,
    /// Nothing if the object does not tell them: of maps in maps.
    pub(super) ours: Option<Shape>,
}

impl Pinned {
    fn new(spec: &'static MapSpec, map: RawMap, theirs: Option<&Types<'_>>, ours: &Types<'_>) -> Self {
        Self {
            spec,
            theirs: theirs.and_then(|types| of_map(spec.name, &map, types)).map(|shape| shape.of(spec)),
            ours: in_object(ours, spec.name).map(|shape| shape.of(spec)),
            map,
        }
    }

    /// Whether this version can use it as it is.
    pub(super) fn is_ours(&self) -> bool {
        if let (Some(theirs), Some(ours)) = (&self.theirs, &self.ours) {
            return theirs == ours;
        }
        // Without types only sizes tell.
        let sizes = (self.map.info.key_size as usize, self.map.info.value_size as usize);
        sizes == (self.spec.key, self.spec.value)
    }
}

/// The tables that are pinned, at `place` of their names.
pub(super) fn pinned(place: impl Fn(&str) -> PathBuf) -> Result<Vec<Pinned>, Error> {
    let (mut btf, mut maps) = (HashMap::new(), Vec::new());
    for spec in MAPS.iter().filter(|spec| place(spec.name).exists()) {
        let map = RawMap::open(&place(spec.name))?;
        // All maps of one agent have their types in one piece.
        if map.info.btf != 0 && !btf.contains_key(&map.info.btf) {
            btf.insert(map.info.btf, bpf::btf_by_id(map.info.btf)?);
        }
        maps.push((spec, map));
    }
    let ours = object_types()?;
    let theirs: HashMap<u32, Types<'_>> =
        btf.iter().filter_map(|(id, bytes)| Some((*id, Types::of(bytes)?))).collect();
    let found = maps.into_iter().map(|(spec, map)| {
        let types = theirs.get(&map.info.btf);
        Pinned::new(spec, map, types, &ours)
    });
    Ok(found.collect())
}

/// The types of our object.
fn object_types() -> Result<Types<'static>, Error> {
    let object =
        object::File::parse(OBJECT).map_err(|error| Error::Missing(format!("the object: {error}")))?;
    let section = object.section_by_name(".BTF").and_then(|section| section.data().ok());
    section.and_then(Types::of).ok_or_else(|| Error::Missing("the object has no BTF".to_owned()))
}

/// The shape of a map, by its BTF, with the present names of its fields.
fn of_map(name: &str, map: &RawMap, types: &Types<'_>) -> Option<Shape> {
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
    use crate::dataplane::{Capacity, Options, abi_dir, load};

    /// By their types, and not for want of them.
    #[test]
    fn tables_of_this_version_are_used_as_they_are() {
        let pins = PinDirectory::new(&Identity::new().to_string()).expect("bpffs");
        let options = Options::unattached(pins.path(), Capacity::START);
        drop(load(&options).expect("the maps"));
        let dir = abi_dir(pins.path());
        let all = pinned(|name| dir.join(name)).expect("comparable");
        let others = all.iter().filter(|table| !table.is_ours()).map(|table| table.spec.name);
        assert_eq!((all.len(), others.collect::<Vec<_>>()), (MAPS.len(), vec![]));
        let types = object_types().expect("types");
        // Maps of maps have no types.
        for spec in MAPS.iter().filter(|spec| !["GRACE", "EVENTS"].contains(&spec.name)) {
            let map = RawMap::open(&dir.join(spec.name)).expect("a map");
            let btf = bpf::btf_by_id(map.info.btf).expect("BTF");
            let theirs = of_map(spec.name, &map, &Types::of(&btf).expect("types"));
            let theirs = theirs.map(|shape| shape.of(spec));
            assert_eq!(theirs, in_object(&types, spec.name).map(|shape| shape.of(spec)), "{}", spec.name);
            let shape = theirs.unwrap_or_else(|| panic!("{} without types", spec.name));
            assert_eq!((shape.key.size, shape.value.size), (spec.key, spec.value), "{}", spec.name);
        }
    }
}
