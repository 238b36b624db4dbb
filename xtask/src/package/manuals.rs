//! The manual and completions that the binary writes.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::{process, workspace};

/// Manual and completions.
pub(super) struct Manuals {
    /// The pages by file name, such as `sidestep-run.1`.
    pub(super) pages: BTreeMap<String, Vec<u8>>,
    /// The completions by where a shell looks for them.
    pub(super) completions: Vec<(&'static str, Vec<u8>)>,
}

/// Where Debian's shells look.
const SHELLS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/sidestep"),
    ("fish", "usr/share/fish/vendor_completions.d/sidestep.fish"),
    ("zsh", "usr/share/zsh/vendor-completions/_sidestep"),
];

/// Has `binary` write them.
pub(super) fn of(binary: &Path) -> Result<Manuals> {
    let folder = workspace::target("package/man");
    if folder.exists() {
        // Removes pages of commands that no longer exist.
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    process::output(Command::new(binary).arg("man").arg(&folder))?;
    let mut pages = BTreeMap::new();
    for entry in fs::read_dir(&folder)? {
        let entry = entry?;
        pages.insert(entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path())?);
    }
    let mut completions = Vec::new();
    for (shell, path) in SHELLS {
        completions
            .push((path, process::output(Command::new(binary).args(["completions", shell]))?.into_bytes()));
    }
    Ok(Manuals { pages, completions })
}
