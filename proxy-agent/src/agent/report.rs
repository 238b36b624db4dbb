//! The agent's report to the other commands: one small file, and the lock that makes the agent its only writer.
//!
//! The maps are pinned, so `status` needs the agent only for what it could not install. A file keeps that readable
//! after the agent has crashed, when operators need it most.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::{
    dataplane::{Device, Progress},
    model::Problem,
};

/// The content of `report.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The agent's version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// The node that it plans for.
    pub node: String,
    /// Where it reads Services from.
    pub source: String,
    /// The cgroup that its programs are attached to.
    pub cgroup_root: PathBuf,
    /// Whether everything that exists has been read and installed once.
    pub synced: bool,
    /// How far the takeover from kube-proxy is, if the agent does it (`--take-over`).
    #[serde(default)]
    pub takeover: Option<Progress>,
    /// The uplinks.
    pub devices: Vec<Device>,
    /// What could not be used or installed.
    pub problems: Vec<Problem>,
}

/// The directory that holds the report, locked for one agent.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    written: Option<Report>,
    _lock: Flock<File>,
}

const REPORT: &str = "report.json";
const LOCK: &str = "agent.lock";
/// How long the kernel may take to end an agent that was killed.
const PATIENCE: Duration = Duration::from_secs(1);

impl RunDir {
    /// Creates and locks the directory. Waits a moment for an agent that was just killed; then `WouldBlock` if another
    /// agent has the lock.
    pub fn lock(path: &Path) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        let mut file = File::create(path.join(LOCK))?;
        let start = Instant::now();
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Ok(Self { path: path.to_owned(), written: None, _lock: lock }),
                Err((_, errno)) if start.elapsed() > PATIENCE => return Err(errno.into()),
                Err((same, _)) => file = same,
            }
            std::thread::sleep(PATIENCE / 50);
        }
    }

    /// Replaces the report, if it says something new.
    pub fn write(&mut self, report: &Report) -> io::Result<()> {
        if self.written.as_ref() == Some(report) {
            return Ok(());
        }
        let new = self.path.join("report.json.new");
        fs::write(&new, serde_json::to_vec_pretty(report)?)?;
        fs::rename(&new, self.path.join(REPORT))?;
        self.written = Some(report.clone());
        Ok(())
    }
}

/// The last report of the agent that uses `path`, and whether it still runs.
pub fn read(path: &Path) -> Option<(Report, bool)> {
    let report = serde_json::from_slice(&fs::read(path.join(REPORT)).ok()?).ok()?;
    let file = File::open(path.join(LOCK)).ok()?;
    let running = Flock::lock(file, FlockArg::LockSharedNonblock).is_err();
    Some((report, running))
}

/// Removes what [`RunDir`] made, and the directory if nothing else is in it.
pub fn remove(path: &Path) -> io::Result<()> {
    for file in [path.join(REPORT), path.join(LOCK)] {
        match fs::remove_file(file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    match fs::remove_dir(path) {
        Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {
            Err(error)
        }
        _ => Ok(()),
    }
}
