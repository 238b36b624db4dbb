//! Paths in the workspace.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::setup;

/// The workspace's root folder.
pub(crate) fn root() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// A path below the workspace's root.
pub(crate) fn path(relative: &str) -> PathBuf {
    root().join(relative)
}

/// A path below the host build's target folder (`CARGO_TARGET_DIR` or `target`).
pub(crate) fn target(relative: &str) -> PathBuf {
    let folder = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| path("target"), PathBuf::from);
    // A relative CARGO_TARGET_DIR is relative to where cargo was started; tasks run children in the root.
    std::path::absolute(&folder).unwrap_or(folder).join(relative)
}

/// A cargo command in the workspace's root, with the environment of a shell: without the variables that `cargo run` sets
/// about xtask's own package. Build scripts of dependencies watch such variables, so alternating between tasks and plain
/// cargo would rebuild everything that depends on them.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(setup::cargo());
    command.current_dir(root());
    for (name, _) in std::env::vars_os() {
        if ["CARGO_PKG_", "CARGO_MANIFEST_"]
            .iter()
            .any(|of| name.as_encoded_bytes().starts_with(of.as_bytes()))
        {
            command.env_remove(name);
        }
    }
    command
}
