//! The modules of a crate, by their names below its root.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use syn::{Item, ext::IdentExt as _};

use super::{
    mentions,
    module::{Module, Names},
};

/// All modules of a crate except tests, by their names below its root.
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

    /// Like [`Self::read`], with files from `read`, which returns `None` for one that does not exist.
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
