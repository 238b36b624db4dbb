//! The lab's cgroups, and threads that enter them.
//!
//! A socket belongs to the cgroup of the thread that creates it. So the lab's cgroups are *threaded* ones: a test
//! moves single threads, and the rest of the process stays where it was. They are made below the cgroup that this
//! process is in, because threads may only move within one threaded domain; nothing is ever attached or changed there
//! itself.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::unistd::gettid;

/// A threaded cgroup; removed on drop, once the last value that refers to it or to a child of it is gone.
#[derive(Clone, Debug)]
pub struct Cgroup {
    directory: Arc<Directory>,
}

#[derive(Debug)]
struct Directory {
    path: PathBuf,
    /// Kept so that parents go after their children.
    _parent: Option<Arc<Directory>>,
}

impl Cgroup {
    /// Makes a cgroup below the one that this process is in.
    pub fn new(name: &str) -> Result<Self> {
        Self::make(own_directory()?.join(name), None)
    }

    /// Makes a cgroup in this one.
    pub fn child(&self, name: &str) -> Result<Self> {
        Self::make(self.directory.path.join(name), Some(Arc::clone(&self.directory)))
    }

    fn make(path: PathBuf, parent: Option<Arc<Directory>>) -> Result<Self> {
        fs::create_dir(&path).with_context(|| format!("cgroup {}", path.display()))?;
        let directory = Arc::new(Directory { path, _parent: parent });
        let kind = directory.path.join("cgroup.type");
        fs::write(&kind, "threaded")
            .with_context(|| format!("making {} threaded", directory.path.display()))?;
        Ok(Self { directory })
    }

    /// The directory in the cgroup file system.
    pub fn path(&self) -> &Path {
        &self.directory.path
    }

    /// Moves the calling thread into the cgroup: the sockets that it creates from now on belong there.
    pub fn enter(&self) -> Result<()> {
        let file = self.directory.path.join("cgroup.threads");
        fs::write(&file, gettid().to_string()).with_context(|| format!("entering {}", file.display()))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.path) {
            eprintln!("cgroup {}: {error}", self.path.display());
        }
    }
}

/// Removes a cgroup; its last threads may still be on their way out.
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
    bail!("no cgroup2 file system is mounted")
}

/// The directory of the cgroup that this process is in.
pub fn own_directory() -> Result<PathBuf> {
    let table = fs::read_to_string("/proc/self/cgroup").context("/proc/self/cgroup")?;
    let own = table.lines().find_map(|line| line.strip_prefix("0::/")).context("no line for cgroup2")?;
    let path = mount_point()?.join(own);
    if !path.join("cgroup.procs").exists() {
        bail!("{} is not there; is cgroup2 mounted in another cgroup namespace?", path.display());
    }
    Ok(path)
}
