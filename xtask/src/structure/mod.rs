//! Checks the source's structure against ARCHITECTURE: no circle of files, and no stage that names a later one.
//!
//! `modules` parses the modules of a crate; `uses` follows every path in them, through re-exports, to the file that
//! defines it; `circles` and `stages` look for circles and for imports of later stages. Tests are exempt, as they may
//! use anything. Method calls are not seen, as they name no file.

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

/// A crate to check.
struct Crate {
    name: &'static str,
    /// Which of its folders may name which.
    stages: &'static [Stage],
    /// A folder in which circles are allowed.
    entangled: Option<&'static str>,
}

const CRATES: [Crate; 3] = [
    // Beginning, finding and ending a connection are steps of one algorithm on one table.
    Crate { name: "proxy-common", stages: &[], entangled: Some("connection") },
    Crate { name: "proxy-agent", stages: stages::AGENT, entangled: None },
    Crate { name: "bench", stages: &[], entangled: None },
];

/// Fails with all circles and all imports of later stages, each with both ends.
pub(crate) fn check() -> Result<()> {
    let faults = faults(workspace::root())?;
    if !faults.is_empty() {
        bail!("the order of modules is wrong (the rules: xtask/src/structure):\n{}", faults.join("\n"));
    }
    Ok(())
}

/// The faults of the workspace at `root`, a line each.
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

    /// Also checks another tree, for comparison: `STRUCTURE_OF=../old cargo test -p xtask structure`.
    #[test]
    fn no_file_of_this_workspace_is_in_a_circle_or_imports_a_later_stage() {
        let other = std::env::var_os("STRUCTURE_OF");
        let root = other.as_deref().map_or(workspace::root(), Path::new);
        let faults = faults(root).unwrap();
        assert!(faults.is_empty(), "{} faults\n{}", faults.len(), faults.join("\n"));
    }
}
