//! Mounts of a test's own, which nobody else sees and which end with it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};

/// Gives the calling thread, and the threads and processes that it starts from now on, mounts of their own.
pub fn own_namespace() -> Result<()> {
    let nothing = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS).context("cannot make a mount namespace")?;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)
        .context("cannot make mounts private")
}

/// A mounted file system; unmounted on drop, even while files of it are open.
#[derive(Debug)]
pub struct Mount(PathBuf);

impl Mount {
    /// Memory with room for this many bytes.
    pub fn memory(at: &Path, bytes: u32) -> Result<Self> {
        Self::new("tmpfs", at, &format!("size={bytes}"))
    }

    /// A BPF file system, empty.
    pub fn bpffs(at: &Path) -> Result<Self> {
        Self::new("bpf", at, "")
    }

    fn new(kind: &str, at: &Path, options: &str) -> Result<Self> {
        mount(Some(kind), at, Some(kind), MsFlags::empty(), Some(options))
            .with_context(|| format!("cannot mount {kind} at {}", at.display()))?;
        Ok(Self(at.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Err(error) = detach(&self.0) {
            eprintln!("{error:#}");
        }
    }
}

/// Unmounts what is mounted there last; open files of it stay open.
pub fn detach(at: &Path) -> Result<()> {
    umount2(at, MntFlags::MNT_DETACH).with_context(|| format!("cannot unmount {}", at.display()))
}
