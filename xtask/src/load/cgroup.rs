//! The lab's cgroup: programs are attached here, so that only processes moved into it see them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use procfs::process::Process;

/// A cgroup, removed when dropped; processes that are still in it go to its parent.
pub(super) struct Cgroup(PathBuf);

impl Cgroup {
    /// Creates `name` below the root of the cgroup2 hierarchy.
    pub(super) fn create(name: &str) -> Result<Self> {
        let path = hierarchy()?.join(name);
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(path))
    }

    /// Its folder.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let processes = fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default();
        if let Some(parent) = self.0.parent() {
            for process in processes.lines() {
                let _ = fs::write(parent.join("cgroup.procs"), process);
            }
        }
        if let Err(error) = fs::remove_dir(&self.0) {
            eprintln!("cannot remove {}: {error}", self.0.display());
        }
    }
}

/// Where cgroup2 is mounted: at one place on pure systems, at another on hybrid ones.
fn hierarchy() -> Result<PathBuf> {
    let mounts = Process::myself()?.mountinfo()?;
    let cgroup2 = mounts.into_iter().find(|mount| mount.fs_type == "cgroup2");
    cgroup2
        .map(|mount| mount.mount_point)
        .context("cgroup2 is not mounted: mount -t cgroup2 none /sys/fs/cgroup")
}
