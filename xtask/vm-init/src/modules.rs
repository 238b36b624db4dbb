//! Loads kernel modules: the initramfs lists them in loading order.

use std::fs::{self, File};

use anyhow::{Context as _, Result};
use nix::kmod::{ModuleInitFlags, finit_module};

/// One path a line, written by `cargo xtask vm`.
const LIST: &str = "/modules.list";

/// Loads every module of the list.
pub(crate) fn load_all() -> Result<()> {
    for path in fs::read_to_string(LIST).with_context(|| format!("cannot read {LIST}"))?.lines() {
        let module = File::open(path).with_context(|| format!("cannot open {path}"))?;
        finit_module(&module, c"", ModuleInitFlags::empty())
            .with_context(|| format!("cannot load {path}"))?;
    }
    Ok(())
}
