//! A node's file systems, at their usual paths.

use std::fs;

use anyhow::{Context as _, Result};
use nix::mount::{MsFlags, mount};

/// Type and mount point, in mounting order.
const MOUNTS: &[(&str, &str)] = &[
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("tmpfs", "/run"),
    ("cgroup2", "/sys/fs/cgroup"),
    ("bpf", "/sys/fs/bpf"),
];

/// Mounts them all.
pub(crate) fn mount_all() -> Result<()> {
    for (kind, place) in MOUNTS {
        // The mount points below /sys exist as soon as sysfs is mounted.
        let _ = fs::create_dir_all(place);
        mount(Some(*kind), *place, Some(*kind), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("cannot mount {kind} at {place}"))?;
    }
    Ok(())
}
