//! The pins of a running agent, and the lock that admits one agent at a time.
//!
//! The pins may vanish while the agent runs: its BPF file system is unmounted. Maps, programs and links live on as long as
//! the agent does, because its lock keeps that file system, unseen, in memory; but no other command finds them, and with
//! the agent everything would end. So once there is a BPF file system in its place, everything is pinned there, too.

use std::{
    fs::{self, File, Permissions},
    os::{
        fd::AsRawFd as _,
        unix::fs::{MetadataExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
};

use nix::fcntl::{Flock, FlockArg};

use super::{
    Error, bpf,
    node::host::{bpffs_mounted, ensure_bpffs},
    tables::maps::abi_dir,
};

/// Locks the tables below `pin_dir` for one writer, until the lock is dropped: two writers would allocate the same
/// slots.
pub fn lock(pin_dir: &Path) -> Result<Flock<File>, Error> {
    ensure_bpffs(pin_dir)?;
    let dir = abi_dir(pin_dir);
    fs::create_dir_all(&dir).map_err(Error::system("mkdir", &dir))?;
    // Who can open a map can write it. The maps are root's alone, and so is the way to them, whatever the umask was.
    fs::set_permissions(&dir, Permissions::from_mode(0o700)).map_err(Error::system("chmod", &dir))?;
    let directory = File::open(&dir).map_err(Error::system("open", &dir))?;
    Flock::lock(directory, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
        if errno == nix::errno::Errno::EWOULDBLOCK {
            Error::Missing(format!("an agent is using the maps under {}: stop it first", pin_dir.display()))
        } else {
            Error::system("flock", &dir)(errno.into())
        }
    })
}

/// The pins below one directory, locked.
#[derive(Debug)]
pub struct Pins {
    pin_dir: PathBuf,
    /// The directory in which everything is pinned.
    lock: Flock<File>,
    problem: Option<String>,
}

impl Pins {
    /// Takes the lock.
    pub fn lock(pin_dir: &Path) -> Result<Self, Error> {
        Ok(Self { pin_dir: pin_dir.to_owned(), lock: lock(pin_dir)?, problem: None })
    }

    /// Why the pins cannot be found where they belong, if they cannot; as of the last look.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Whether they are where they belong. Pins them there again if something is in their place.
    pub fn look(&mut self) -> bool {
        if self.are_there() {
            self.problem = None;
            return true;
        }
        let restored = self.restore();
        if restored.is_ok() {
            tracing::info!(pin_dir = %self.pin_dir.display(), "pinned all maps and programs again");
        }
        self.problem = restored.err().map(|error| {
            format!(
                "the BPF file system with the pinned maps and programs is not mounted at {} any more. They serve as long \
                 as this agent runs, and end with it: mount one there again (`mount -t bpf bpf /sys/fs/bpf`), and the \
                 agent pins them anew ({error})",
                self.pin_dir.display()
            )
        });
        self.problem.is_none()
    }

    fn are_there(&self) -> bool {
        let held = self.lock.metadata().map(|found| (found.dev(), found.ino()));
        let there = fs::metadata(abi_dir(&self.pin_dir)).map(|found| (found.dev(), found.ino()));
        matches!((held, there), (Ok(held), Ok(there)) if held == there)
    }

    /// Pins everything where it belongs, in a directory without tables.
    fn restore(&mut self) -> Result<(), Error> {
        let dir = abi_dir(&self.pin_dir);
        if !bpffs_mounted(&self.pin_dir)? {
            ensure_bpffs(&self.pin_dir)?;
        }
        if dir.join("FRONTENDS").exists() {
            return Err(Error::Missing(format!(
                "other maps are pinned there: stop the agent, run `sidestep cleanup` and start it again; {} is in the way",
                dir.display()
            )));
        }
        let lock = lock(&self.pin_dir)?;
        // The way into a file system that is mounted nowhere.
        pin_all(&PathBuf::from(format!("/proc/self/fd/{}", self.lock.as_raw_fd())), &dir)?;
        self.lock = lock;
        Ok(())
    }
}

/// Pins in `to` whatever is pinned below `from`. What is pinned there already, by a try that failed, stays.
fn pin_all(from: &Path, to: &Path) -> Result<(), Error> {
    for entry in fs::read_dir(from).map_err(Error::system("read", from))? {
        let entry = entry.map_err(Error::system("read", from))?;
        let (old, new) = (from.join(entry.file_name()), to.join(entry.file_name()));
        if new.exists() && !new.is_dir() {
            continue;
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            fs::create_dir_all(&new).map_err(Error::system("mkdir", &new))?;
            pin_all(&old, &new)?;
        } else {
            bpf::pin_again(&old, &new)?;
        }
    }
    Ok(())
}
