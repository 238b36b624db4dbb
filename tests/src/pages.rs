//! Reads the repository's documents for the tests that check them: links, headings, paths, and commands.
//!
//! | file | concept |
//! |---|---|
//! | `markdown` | the contents of one page |
//! | `links` | whether the targets of links, and paths in code, exist |
//! | `commands` | whether a command and its flags exist, by the definition that parses them |
//!
//! Every program checks its own commands: `xtask/src/pages.rs`, `proxy-agent/tests/pages.rs`.

mod commands;
mod links;
mod markdown;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

pub use self::commands::{Program, faults as faults_of_commands};
pub use self::links::faults as faults_of_links;
pub use self::markdown::Page;

/// Folders without files of the repository.
const FOREIGN: [&str; 1] = ["target"];

/// The repository's root.
pub fn root() -> &'static Path {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests)
}

/// Every page of the repository, in the order of their paths.
pub fn all() -> Result<Vec<Page>> {
    let mut paths = Vec::new();
    collect(root(), &mut paths)?;
    paths.sort_unstable();
    paths.iter().map(|path| read(path)).collect()
}

/// The page at this path below the root.
pub fn page(path: &str) -> Result<Page> {
    read(&root().join(path))
}

fn read(path: &Path) -> Result<Page> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    Ok(Page::parse(path.strip_prefix(root()).unwrap_or(path), &text))
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if entry.file_type()?.is_dir() {
            if !name.starts_with('.') && !FOREIGN.contains(&name.as_ref()) {
                collect(&path, paths)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "md") {
            paths.push(path);
        }
    }
    Ok(())
}
