//! Does the source hang together as ARCHITECTURE says: no circle of files, and no stage that names what comes after it?
//!
//! The modules of a crate are read as Rust (`modules`), every path in them is followed to the file that defines what it
//! names, through re-exports (`uses`), and the result is looked at for circles (`circles`) and for imports that lead the
//! wrong way (`stages`). Tests are left out: they may look at anything. So are calls of methods, which name no file.

mod circles;
mod mentions;
mod module;
mod modules;
mod stages;
mod uses;

use std::path::Path;

use anyhow::{Context as _, Result, bail};

use self::{modules::Modules, stages::Stage, uses::Uses};
use crate::workspace;

/// A crate that is looked at.
struct Crate {
    name: &'static str,
    /// In what order its folders may name each other.
    stages: &'static [Stage],
    /// A folder whose files may stand in a circle.
    entangled: Option<&'static str>,
}

const CRATES: [Crate; 3] = [
    // Beginning, finding and ending a connection are steps of one algorithm on one table.
    Crate { name: "proxy-common", stages: &[], entangled: Some("connection") },
    Crate { name: "proxy-agent", stages: stages::AGENT, entangled: None },
    Crate { name: "bench", stages: &[], entangled: None },
];

/// Fails with all circles and all imports that lead backwards, each with both ends.
pub(crate) fn check() -> Result<()> {
    let faults = faults(workspace::root())?;
    if !faults.is_empty() {
        bail!("the order of modules (xtask/src/structure): {}", faults.join("\n"));
    }
    Ok(())
}

/// What is wrong in the workspace at `root`, a line each.
fn faults(root: &Path) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    for Crate { name, stages, entangled } in CRATES {
        let source = root.join(name).join("src");
        let modules = Modules::read(&source).with_context(|| source.display().to_string())?;
        let uses = Uses::of(&modules);
        let found = circles::circles(&uses, entangled).into_iter().chain(stages::backward(&uses, stages));
        faults.extend(found.map(|fault| format!("{name}: {fault}")));
    }
    Ok(faults)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Also of another tree, to compare with: `STRUCTURE_OF=../old cargo test -p xtask structure`.
    #[test]
    fn no_file_of_this_workspace_stands_in_a_circle_or_imports_backwards() {
        let other = std::env::var_os("STRUCTURE_OF");
        let root = other.as_deref().map_or(workspace::root(), Path::new);
        let faults = faults(root).unwrap();
        assert!(faults.is_empty(), "{} faults\n{}", faults.len(), faults.join("\n"));
    }
}
