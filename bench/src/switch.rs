//! Sysctls of a network namespace.

use std::fs;

use anyhow::{Context as _, Result};
use sidestep_tests::namespace::Namespace;

/// Sets `net/...` in this namespace.
pub(crate) fn set(namespace: &Namespace, switch: &str, value: &str) -> Result<()> {
    let file = format!("/proc/sys/{switch}");
    namespace.run(|| fs::write(&file, value))?.with_context(|| format!("{file} = {value}"))
}
