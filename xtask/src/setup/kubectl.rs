//! kubectl, which renders `deploy/` for the tests: the machine's own where it is new enough, else Debian's.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use serde_json::Value;

use super::optional::{self, Optional};
use crate::{process, workspace};

/// The oldest major version of kustomize that knows `labels` with `pairs`.
const OLDEST_KUSTOMIZE: u64 = 4;
/// The suite to take it from. The program needs only a libc that older suites have, too; their own kubectl is too old
/// for `labels` with `pairs`.
const SUITE: &str = "trixie";

/// A kubectl that can render; without one, the tests that need it skip.
pub(crate) fn find() -> Option<PathBuf> {
    let folder = workspace::target("setup/kubectl");
    let kubectl = Optional {
        name: "kubectl",
        origin: format!("package from {SUITE}"),
        installed: Some("kubectl".into()),
        fetched: folder.join("root/usr/bin/kubectl"),
        works: renders,
    };
    kubectl.find(|_| optional::unpack("kubectl", SUITE, &folder))
}

fn renders(program: &Path) -> Result<()> {
    let version = process::output(Command::new(program).args(["version", "--client", "--output", "json"]))?;
    let version: Value = serde_json::from_str(&version)?;
    // Such as "v5.5.0"; kubectl before 1.21 has no kustomize version.
    let kustomize = version["kustomizeVersion"].as_str().unwrap_or_default();
    let major = kustomize.trim_start_matches('v').split('.').next().and_then(|major| major.parse().ok());
    ensure!(
        major.unwrap_or(0_u64) >= OLDEST_KUSTOMIZE,
        "`{}` has kustomize {kustomize:?}, not {OLDEST_KUSTOMIZE} or later",
        program.display()
    );
    Ok(())
}
