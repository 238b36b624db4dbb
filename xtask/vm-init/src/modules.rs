//! Kernel modules: the initramfs lists them in the order in which they need each other.

use std::fs::{self, File};

use anyhow::{Context as _, Result};
use nix::kmod::{ModuleInitFlags, finit_module};

/// One path a line, written by `cargo xtask vm`.
const LIST: &str = "/modules.list";

/// Loads every module of the list.
pub(crate) fn load_all() -> Result<()> {
    for path in fs::read_to_string(LIST).with_context(|| format!("read {LIST}"))?.lines() {
        let module = File::open(path).with_context(|| format!("open {path}"))?;
        finit_module(&module, c"", ModuleInitFlags::empty()).with_context(|| format!("load {path}"))?;
    }
    Ok(())
}
