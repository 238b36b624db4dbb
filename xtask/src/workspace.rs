//! Where things are in the workspace.

use std::path::{Path, PathBuf};

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
