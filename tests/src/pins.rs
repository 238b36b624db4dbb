//! The lab's directory in bpffs, for the agent's pins.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use nix::{
    fcntl::{Flock, FlockArg},
    mount::{MsFlags, mount},
};

/// The usual mount point of bpffs.
pub(crate) const BPFFS: &str = "/sys/fs/bpf";

/// A directory for pins. Dropping it removes it with its contents, which detaches every link that is pinned there.
#[derive(Debug)]
pub struct PinDirectory {
    path: PathBuf,
}

impl PinDirectory {
    /// Chooses the directory, and mounts bpffs if it is not mounted. The agent makes the directory itself.
    pub fn new(name: &str) -> Result<Self> {
        mount_bpffs()?;
        Ok(Self { path: Path::new(BPFFS).join(name) })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for PinDirectory {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.path) {
            eprintln!("pins {}: {error}", self.path.display());
        }
    }
}

/// Unpins everything below `path`.
pub(crate) fn remove(path: &Path) -> std::io::Result<()> {
    if path.exists() { fs::remove_dir_all(path) } else { Ok(()) }
}

fn mount_bpffs() -> Result<()> {
    // Labs start concurrently in several processes; a second mount over the first would hide pins.
    let lock = fs::File::create(std::env::temp_dir().join("sidestep-lab.lock"))
        .context("cannot create the lab's lock file")?;
    let _lock = Flock::lock(lock, FlockArg::LockExclusive)
        .map_err(|(_, error)| error)
        .context("cannot lock the lab's lock file")?;
    let table = fs::read_to_string("/proc/self/mountinfo").context("/proc/self/mountinfo")?;
    if table.lines().any(|line| line.split(' ').nth(4) == Some(BPFFS) && line.contains(" - bpf ")) {
        return Ok(());
    }
    mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), None::<&str>)
        .with_context(|| format!("cannot mount bpffs at {BPFFS}"))
}
