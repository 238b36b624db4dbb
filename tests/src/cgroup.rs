//! The lab's cgroups, and threads that enter them.
//!
//! A socket belongs to the cgroup of the thread that creates it, so the lab's cgroups are *threaded*: a test moves
//! single threads, and the rest of the process stays where it is. They are made below this process's own cgroup,
//! because threads can only move within one threaded domain; that cgroup itself is never changed, and nothing is
//! attached to it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::unistd::gettid;

/// A threaded cgroup; removed when the last value that refers to it or to a child of it is dropped.
#[derive(Clone, Debug)]
pub struct Cgroup {
    directory: Arc<Directory>,
}

#[derive(Debug)]
struct Directory {
    path: PathBuf,
    /// Kept so that parents are removed after their children.
    _parent: Option<Arc<Directory>>,
}

impl Cgroup {
    /// Makes a cgroup below this process's own.
    pub fn new(name: &str) -> Result<Self> {
        Self::make(own_directory()?.join(name), None)
    }

    /// Makes a cgroup in this one.
    pub fn child(&self, name: &str) -> Result<Self> {
        Self::make(self.directory.path.join(name), Some(Arc::clone(&self.directory)))
    }

    fn make(path: PathBuf, parent: Option<Arc<Directory>>) -> Result<Self> {
        fs::create_dir(&path).with_context(|| format!("cannot create the cgroup {}", path.display()))?;
        let directory = Arc::new(Directory { path, _parent: parent });
        let kind = directory.path.join("cgroup.type");
        fs::write(&kind, "threaded")
            .with_context(|| format!("cannot make {} threaded", directory.path.display()))?;
        Ok(Self { directory })
    }

    /// The directory in the cgroup file system.
    pub fn path(&self) -> &Path {
        &self.directory.path
    }

    /// Moves the calling thread into the cgroup; sockets that it creates from now on belong to the cgroup.
    pub fn enter(&self) -> Result<()> {
        let file = self.directory.path.join("cgroup.threads");
        fs::write(&file, gettid().to_string()).with_context(|| format!("cannot write to {}", file.display()))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.path) {
            eprintln!("cannot remove the cgroup {}: {error}", self.path.display());
        }
    }
}

/// Removes a cgroup; its last threads may still be exiting.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    let start = Instant::now();
    loop {
        match fs::remove_dir(path) {
            Err(error)
                if error.kind() == io::ErrorKind::ResourceBusy
                    && start.elapsed() < Duration::from_secs(2) =>
            {
                sleep(Duration::from_millis(5));
            }
            result => return result,
        }
    }
}

/// Where cgroup2 is mounted: `/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` beside version 1.
fn mount_point() -> Result<PathBuf> {
    // 35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw
    let table = fs::read_to_string("/proc/self/mountinfo").context("/proc/self/mountinfo")?;
    for line in table.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        if right.split(' ').next() == Some("cgroup2")
            && let Some(path) = left.split(' ').nth(4)
        {
            return Ok(PathBuf::from(path));
        }
    }
    bail!("cgroup2 is not mounted: mount -t cgroup2 none /sys/fs/cgroup")
}

/// The directory of this process's own cgroup.
pub fn own_directory() -> Result<PathBuf> {
    let table = fs::read_to_string("/proc/self/cgroup").context("/proc/self/cgroup")?;
    let own = table.lines().find_map(|line| line.strip_prefix("0::/")).context("no line for cgroup2")?;
    let path = mount_point()?.join(own);
    if !path.join("cgroup.procs").exists() {
        bail!("{} does not exist; is cgroup2 mounted in another cgroup namespace?", path.display());
    }
    Ok(path)
}
