//! A node's file systems, at their usual paths.

use std::fs;

use anyhow::{Context as _, Result};
use nix::mount::{MsFlags, mount};

/// Type and place, in the order in which they need each other.
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
        // Those below /sys exist as soon as it is mounted.
        let _ = fs::create_dir_all(place);
        mount(Some(*kind), *place, Some(*kind), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("mount {kind} at {place}"))?;
    }
    Ok(())
}
