//! The lab's own bpffs: its pins disappear with the mount.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// A bpffs, unmounted when dropped, which removes its pins.
pub(super) struct Pins {
    mount: PathBuf,
    folder: PathBuf,
}

impl Pins {
    /// Mounts one at `place`, in place of what a killed run left there.
    pub(super) fn create(place: &Path) -> Result<Self> {
        fs::create_dir_all(place).with_context(|| format!("cannot create {}", place.display()))?;
        while umount2(place, MntFlags::MNT_DETACH).is_ok() {}
        mount(Some("bpf"), place, Some("bpf"), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("cannot mount a bpffs at {}", place.display()))?;
        Ok(Self { mount: place.to_owned(), folder: place.join("sidestep") })
    }

    /// The agent's `--pin-dir`.
    pub(super) fn path(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        if let Err(error) = umount2(&self.mount, MntFlags::MNT_DETACH) {
            eprintln!("cannot unmount {}: {error}", self.mount.display());
        }
        // Removes only an empty folder: one with files in it is not ours.
        for folder in self.mount.ancestors().take(2) {
            let _ = fs::remove_dir(folder);
        }
    }
}
