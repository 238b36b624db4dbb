//! promtool and Prometheus, which read the rules and the dashboard in the tests: the machine's own, or Debian's.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::optional::{self, Optional};
use crate::{process, workspace};

/// The suite to take the package from. Its programs need only a libc that later suites have, too.
const SUITE: &str = "bookworm";

/// The folder with both programs; without them, the tests that need them skip.
pub(crate) fn find() -> Option<PathBuf> {
    let folder = workspace::target("setup/prometheus");
    let prometheus = Optional {
        name: "promtool, Prometheus",
        origin: format!("package from {SUITE}"),
        installed: which::which("promtool").ok().and_then(|program| Some(program.parent()?.to_owned())),
        fetched: folder.join("root/usr/bin"),
        works,
    };
    prometheus.find(|_| optional::unpack("prometheus", SUITE, &folder))
}

fn works(programs: &Path) -> Result<()> {
    for program in ["promtool", "prometheus"] {
        process::output(Command::new(programs.join(program)).arg("--version"))?;
    }
    Ok(())
}
