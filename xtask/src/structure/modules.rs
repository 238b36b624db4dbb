//! The modules of a crate: which file each is in, what it imports, what it defines, and which paths it names.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use syn::{Attribute, Item, ItemUse, UseTree, Visibility, ext::IdentExt as _};

use super::mentions;

/// The names of a path, or of a module below its crate's root (which is empty).
pub(super) type Names = Vec<String>;

/// One module, in a file of its own or in braces.
#[derive(Default, Debug)]
pub(super) struct Module {
    /// The file that it is in, below the source folder.
    pub(super) file: PathBuf,
    /// What its `use` declarations bind: a name, and the path as it is written.
    pub(super) imports: BTreeMap<String, Names>,
    /// Modules of which everything is imported.
    pub(super) globs: Vec<Names>,
    /// The items that it defines.
    pub(super) items: BTreeSet<String>,
    /// The paths that it names, as they are written. Those that it only passes on (`pub use`) are not among them.
    pub(super) mentions: BTreeSet<Names>,
}

/// All modules of a crate but those of tests, by their names below its root.
#[derive(Default, Debug)]
pub(super) struct Modules(pub(super) BTreeMap<Names, Module>);

impl Modules {
    /// Reads the crate whose source is in this folder.
    pub(super) fn read(source: &Path) -> Result<Self> {
        let root = if source.join("lib.rs").exists() { "lib.rs" } else { "main.rs" };
        let read = |file: &Path| {
            let path = source.join(file);
            path.exists().then(|| fs::read_to_string(&path)).transpose()
        };
        Self::from_files(Path::new(root), &read)
    }

    /// The same of files that `read` gives, `None` for one that is not there.
    pub(super) fn from_files(
        root: &Path,
        read: &impl Fn(&Path) -> std::io::Result<Option<String>>,
    ) -> Result<Self> {
        let mut modules = Self::default();
        modules.add_file(root, Names::new(), read)?;
        Ok(modules)
    }

    fn add_file(
        &mut self,
        file: &Path,
        name: Names,
        read: &impl Fn(&Path) -> std::io::Result<Option<String>>,
    ) -> Result<()> {
        let text = read(file)?.with_context(|| format!("{} is missing", file.display()))?;
        let parsed = syn::parse_file(&text).with_context(|| file.display().to_string())?;
        self.add(file, name, parsed.items, read)
    }

    fn add(
        &mut self,
        file: &Path,
        name: Names,
        items: Vec<Item>,
        read: &impl Fn(&Path) -> std::io::Result<Option<String>>,
    ) -> Result<()> {
        let mut module = Module { file: file.to_owned(), ..Module::default() };
        for item in items.into_iter().filter(|item| !mentions::is_for_tests(item)) {
            match item {
                Item::Mod(child) => {
                    let mut names = name.clone();
                    names.push(child.ident.unraw().to_string());
                    if let Some((_, items)) = child.content {
                        self.add(file, names, items, read)?;
                        continue;
                    }
                    let path: PathBuf = names.iter().collect();
                    let plain = path.with_extension("rs");
                    let found = if read(&plain)?.is_some() { plain } else { path.join("mod.rs") };
                    self.add_file(&found, names, read)?;
                }
                Item::Use(item) => module.import(&item),
                other => {
                    module.items.extend(mentions::defined(&other));
                    mentions::collect(&other, &mut module);
                }
            }
        }
        self.0.insert(name, module);
        Ok(())
    }
}

impl Module {
    /// Notes what a `use` binds; where it is nobody else's, its paths are mentions too.
    pub(super) fn import(&mut self, item: &ItemUse) {
        let mut leaves = Vec::new();
        leaves_of(&item.tree, &mut Names::new(), &mut leaves);
        for (mut path, bound) in leaves {
            if path.last().is_some_and(|last| last == "self") && path.len() > 1 {
                path.pop();
            }
            match bound {
                Bound::Everything => self.globs.push(path.clone()),
                Bound::Name(name) => {
                    self.imports.insert(name, path.clone());
                }
                Bound::Last => {
                    if let Some(last) = path.last() {
                        self.imports.insert(last.clone(), path.clone());
                    }
                }
            }
            if matches!(item.vis, Visibility::Inherited) {
                self.mentions.insert(path);
            }
        }
    }
}

/// What a leaf of a `use` binds.
enum Bound {
    Last,
    Name(String),
    Everything,
}

fn leaves_of(tree: &UseTree, path: &mut Names, leaves: &mut Vec<(Names, Bound)>) {
    let below = |path: &Names, name: String| path.iter().cloned().chain([name]).collect();
    match tree {
        UseTree::Path(step) => {
            path.push(step.ident.unraw().to_string());
            leaves_of(&step.tree, path, leaves);
            path.pop();
        }
        UseTree::Name(name) => leaves.push((below(path, name.ident.unraw().to_string()), Bound::Last)),
        UseTree::Rename(name) => {
            let bound = Bound::Name(name.rename.unraw().to_string());
            leaves.push((below(path, name.ident.unraw().to_string()), bound));
        }
        UseTree::Glob(_) => leaves.push((path.clone(), Bound::Everything)),
        UseTree::Group(group) => group.items.iter().for_each(|tree| leaves_of(tree, path, leaves)),
    }
}

/// Whether one of the attributes leaves an item to tests.
pub(super) fn only_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("test")
            || attribute.path().is_ident("cfg")
                && matches!(&attribute.meta, syn::Meta::List(list) if {
                    let condition = list.tokens.to_string();
                    condition.contains("test") && !condition.contains("not")
                })
    })
}
