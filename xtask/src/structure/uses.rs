//! Which file uses a definition of which other file.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use super::{module::Names, modules::Modules};

/// How many re-exports may lie between a name and its definition.
const DEEPEST: usize = 16;

/// For each file, the files of which it uses a definition, and the last names of those paths.
#[derive(Default, Debug)]
pub(super) struct Uses(pub(super) BTreeMap<PathBuf, BTreeMap<PathBuf, BTreeSet<String>>>);

/// Where a path ends.
struct Found<'a> {
    file: &'a Path,
    /// At a module itself, and at nothing in it.
    is_module: bool,
}

impl Uses {
    pub(super) fn of(modules: &Modules) -> Self {
        let mut uses = Self::default();
        for (name, module) in &modules.0 {
            uses.0.entry(module.file.clone()).or_default();
            for path in &module.mentions {
                let Some(found) = absolute(modules, name, path).and_then(|path| follow(modules, &path, 0))
                else {
                    continue;
                };
                // A file that imports a module and uses it names one of its items elsewhere.
                let only_bound = found.is_module && module.imports.values().any(|import| import == path);
                if !only_bound && found.file != module.file {
                    let last = path.last().cloned().unwrap_or_default();
                    let of = uses.0.entry(module.file.clone()).or_default();
                    of.entry(found.file.to_owned()).or_default().insert(last);
                }
            }
        }
        uses
    }
}

/// `path` as seen from the crate's root, if it leads into the crate. Only its first name depends on the module in which
/// it is written.
fn absolute(modules: &Modules, module: &Names, path: &[String]) -> Option<Names> {
    let (first, rest) = path.split_first()?;
    let below = |start: &[String]| Some(start.iter().chain(rest).cloned().collect());
    match first.as_str() {
        "crate" => below(&[]),
        "self" => below(module),
        "super" => {
            let parent = module.split_last()?.1.to_vec();
            if rest.first().is_some_and(|next| next == "super") {
                return absolute(modules, &parent, rest);
            }
            below(&parent)
        }
        _ => {
            let known = modules.0.get(module)?;
            let mut local = module.clone();
            local.push(first.clone());
            let is_local = known.imports.contains_key(first) || modules.0.contains_key(&local);
            let is_local = is_local || known.globs.iter().any(|glob| defines(modules, module, glob, first));
            is_local.then(|| module.iter().chain(path).cloned().collect())
        }
    }
}

/// Whether the glob import `glob` of `module` includes `name`.
fn defines(modules: &Modules, module: &Names, glob: &[String], name: &String) -> bool {
    let Some(target) = glob_target(modules, module, glob) else { return false };
    let Some(known) = modules.0.get(&target) else { return false };
    let mut child = target.clone();
    child.push(name.clone());
    known.items.contains(name) || known.imports.contains_key(name) || modules.0.contains_key(&child)
}

/// The module that a glob imports from, if it is the crate's and named by its own path.
fn glob_target(modules: &Modules, module: &Names, glob: &[String]) -> Option<Names> {
    let first = glob.first()?;
    if ["crate", "self", "super"].contains(&first.as_str()) {
        return absolute(modules, module, glob);
    }
    let local: Names = module.iter().chain(glob).cloned().collect();
    modules.0.contains_key(&local).then_some(local)
}

/// Follows a path from the root to the file that defines what it names.
fn follow<'a>(modules: &'a Modules, path: &[String], depth: usize) -> Option<Found<'a>> {
    let mut at = Names::new();
    for (number, name) in path.iter().enumerate() {
        let mut child = at.clone();
        child.push(name.clone());
        let module = modules.0.get(&at)?;
        if modules.0.contains_key(&child) {
            at = child;
            continue;
        }
        let rest = &path[number + 1..];
        let meant = module.imports.get(name).cloned().or_else(|| {
            let glob = module.globs.iter().find(|glob| defines(modules, &at, glob, name))?;
            Some(glob.iter().cloned().chain([name.clone()]).collect())
        });
        if let Some(meant) = meant
            && !module.items.contains(name)
            && depth < DEEPEST
        {
            // A re-export of another crate's item counts as defined by the module that re-exports it.
            if let Some(through) = import_target(modules, &at, &meant) {
                let whole: Names = through.iter().chain(rest).cloned().collect();
                return follow(modules, &whole, depth + 1);
            }
        }
        return Some(Found { file: &module.file, is_module: false });
    }
    modules.0.get(&at).map(|module| Found { file: &module.file, is_module: true })
}

/// An import's path as seen from the root: `None` for another crate's. Imports do not resolve through themselves.
fn import_target(modules: &Modules, module: &Names, path: &[String]) -> Option<Names> {
    let first = path.first()?;
    if ["crate", "self", "super"].contains(&first.as_str()) {
        return absolute(modules, module, path);
    }
    let mut child = module.clone();
    child.push(first.clone());
    let known = modules.0.get(module)?;
    let by_import =
        path.len() > 1 && known.imports.get(first).is_some_and(|import| import.as_slice() != path);
    (modules.0.contains_key(&child) || by_import).then(|| module.iter().chain(path).cloned().collect())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The uses of a crate of these files.
    pub(in super::super) fn uses(files: &[(&str, &str)]) -> Uses {
        let read = |path: &Path| {
            let found = files.iter().find(|(name, _)| Path::new(name) == path);
            Ok(found.map(|(_, text)| (*text).to_owned()))
        };
        Uses::of(&Modules::from_files(Path::new("lib.rs"), &read).unwrap())
    }

    /// Each use as `file > file: names`.
    fn lines(files: &[(&str, &str)]) -> Vec<String> {
        let uses = uses(files).0;
        let of = |(from, to): (&PathBuf, &BTreeMap<PathBuf, BTreeSet<String>>)| {
            let line = |(end, names): (&PathBuf, &BTreeSet<String>)| {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                format!("{} > {}: {}", from.display(), end.display(), names.join(" "))
            };
            to.iter().map(line).collect::<Vec<_>>()
        };
        uses.iter().flat_map(of).collect()
    }

    #[test]
    fn a_name_is_followed_through_re_exports_to_the_file_that_defines_it() {
        let found = lines(&[
            ("lib.rs", "mod shop; mod till;"),
            ("shop/mod.rs", "mod shelf; pub use self::shelf::{Tin as Can, *}; pub struct Shop;"),
            ("shop/shelf.rs", "pub struct Tin; pub struct Jar;"),
            ("till.rs", "use crate::shop::{Can, Jar, Shop}; use std::fs;"),
        ]);
        assert_eq!(found, ["till.rs > shop/mod.rs: Shop", "till.rs > shop/shelf.rs: Can Jar"]);
    }

    #[test]
    fn uses_of_an_imported_modules_items_count_and_the_import_alone_does_not() {
        let found = lines(&[
            ("lib.rs", "mod shop; mod till;"),
            ("shop/mod.rs", "pub mod shelf; pub use shelf::take;"),
            ("shop/shelf.rs", "pub fn take() {}"),
            ("till.rs", "use super::shop; fn f() { shop::take(); }"),
        ]);
        assert_eq!(found, ["till.rs > shop/shelf.rs: take"]);
    }

    #[test]
    fn paths_in_macros_bodies_and_modules_in_braces_count() {
        let found = lines(&[
            ("lib.rs", "mod a; mod b; mod c;"),
            ("a.rs", "mod inner { fn f() { info!(x = %super::super::b::B); } }"),
            ("b.rs", "pub struct B; fn f() { use crate::c::C; }"),
            ("c.rs", "pub struct C(crate::a::Missing);"),
        ]);
        assert_eq!(found, ["a.rs > b.rs: B", "b.rs > c.rs: C", "c.rs > a.rs: Missing"]);
    }

    #[test]
    fn tests_may_name_anything() {
        let found = lines(&[
            ("lib.rs", "mod a; mod b; #[cfg(test)] mod missing;"),
            ("a.rs", "#[cfg(test)] use crate::b::B; #[cfg(test)] mod tests { use crate::b::B; }"),
            ("b.rs", "pub struct B; #[test] fn f() { crate::a::x(); }"),
        ]);
        assert_eq!(found, [""; 0]);
    }

    #[test]
    fn names_of_other_crates_count_only_where_a_module_re_exports_them() {
        let found = lines(&[
            ("lib.rs", "mod config; mod a;"),
            ("config.rs", "pub use serde::config; pub struct Config;"),
            ("a.rs", "use serde::Config; fn f(config: u8) { g(config); crate::config::config(); }"),
        ]);
        assert_eq!(found, ["a.rs > config.rs: config"]);
    }
}
