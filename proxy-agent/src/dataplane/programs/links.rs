//! The pinned links of the socket hooks: where they are, and what is behind them.

use std::path::{Path, PathBuf};

use super::hooks::Hook;
use crate::dataplane::{bpf, tables::maps::abi_dir};

/// The pin of the link of `hook`.
pub(super) fn link_pin(pin_dir: &Path, hook: &Hook) -> PathBuf {
    abi_dir(pin_dir).join("links").join(hook.name)
}

/// The id of the program behind the pinned link of `hook`.
pub(super) fn ours(pin_dir: &Path, hook: &Hook) -> Option<u32> {
    bpf::cgroup_link(&link_pin(pin_dir, hook)).ok().map(|link| link.program)
}
