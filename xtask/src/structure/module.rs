//! One module: which file it is in, what it imports, what it defines, and which paths it names.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use syn::{ItemUse, UseTree, Visibility, ext::IdentExt as _};

/// The names of a path, or of a module below its crate's root (which is empty).
pub(super) type Names = Vec<String>;

/// One module, in a file of its own or in braces.
#[derive(Default, Debug)]
pub(super) struct Module {
    /// The file that it is in, below the source folder.
    pub(super) file: PathBuf,
    /// What its `use` declarations bind: a name, and the path as it is written.
    pub(super) imports: BTreeMap<String, Names>,
    /// Modules imported with a glob.
    pub(super) globs: Vec<Names>,
    /// The items that it defines.
    pub(super) items: BTreeSet<String>,
    /// The paths that it names, as written, without those that it only re-exports (`pub use`).
    pub(super) mentions: BTreeSet<Names>,
}

impl Module {
    /// Adds the names that a `use` binds; unless it re-exports them, its paths are mentions, too.
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

/// The name that a leaf of a `use` binds.
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
