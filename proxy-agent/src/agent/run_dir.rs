//! The run directory: the lock that admits one agent, and the report.
//!
//! An agent that cannot write its report goes on serving, says so in its note and among the problems, and tries again.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::fcntl::{Flock, FlockArg};

use super::{
    note::{Note, Phase},
    report::Report,
};
use crate::model::{Problem, Subject};

/// The directory that holds the report, locked for one agent.
#[derive(Debug)]
pub(super) struct RunDir {
    path: PathBuf,
    written: Option<Report>,
    /// Why the report could not be written the last time.
    trouble: Option<String>,
    lock: Flock<File>,
}

const REPORT: &str = "report.json";
pub(super) const LOCK: &str = "agent.lock";
/// How long the kernel may take to end an agent that was killed.
const PATIENCE: Duration = Duration::from_secs(1);

/// The report in a run directory, if there is one that can be read.
pub(super) fn read_report(path: &Path) -> Option<Report> {
    fs::read(path.join(REPORT)).ok().and_then(|text| serde_json::from_slice(&text).ok())
}

impl RunDir {
    /// Creates and locks the directory. Waits a moment for an agent that was just killed; then `WouldBlock` if another
    /// agent has the lock.
    pub(super) fn lock(path: &Path) -> io::Result<Self> {
        let lock = lock(path, PATIENCE)?;
        let run_dir = Self { path: path.to_owned(), written: None, trouble: None, lock };
        run_dir.note(Phase::Starting, None);
        Ok(run_dir)
    }

    /// The report of the agent before, if there is one.
    pub(super) fn last_report(&self) -> Option<Report> {
        read_report(&self.path)
    }

    /// Says that the agent waits for something before it can start.
    pub(super) fn waits(&self, for_what: &str) {
        self.note(Phase::Starting, Some(for_what.to_owned()));
    }

    /// Replaces the report, if it says something new. Returns whether what [`Self::problem`] says has changed by that.
    pub(super) fn write(&mut self, report: &Report) -> bool {
        if self.written.as_ref() == Some(report) && self.trouble.is_none() {
            return false;
        }
        let trouble = self.replace(report).err().map(|(path, error)| format!("cannot write {path}: {error}"));
        if trouble.is_none() {
            if self.written.is_none() {
                self.note(Phase::Running, None);
            }
            self.written = Some(report.clone());
        }
        if self.trouble == trouble {
            return false;
        }
        self.note(Phase::Running, trouble.clone());
        self.trouble = trouble;
        true
    }

    /// Whether the report cannot be written.
    pub(super) fn problem(&self) -> Option<Problem> {
        let trouble = self.trouble.as_ref()?;
        Some(Problem {
            subject: Subject::ThisNode,
            field: "report".to_owned(),
            message: format!(
                "{trouble}; Services are served all the same, but `sidestep status` shows an old report or none: make \
                 room in the run directory, start the agent again if that was removed, or use another --run-dir"
            ),
        })
    }

    fn replace(&mut self, report: &Report) -> Result<(), (String, io::Error)> {
        let (new, place) = (self.path.join("report.json.new"), self.path.join(REPORT));
        let at = |path: &Path| {
            let path = path.display().to_string();
            move |error| (path, error)
        };
        if !self.path.join(LOCK).exists() {
            // Somebody removed the directory, and with it the lock.
            self.lock = lock(&self.path, Duration::ZERO).map_err(at(&self.path))?;
        }
        let text = serde_json::to_vec_pretty(report).map_err(|error| at(&new)(error.into()))?;
        fs::write(&new, text).map_err(at(&new)).inspect_err(|_| {
            // Half a report only takes up room.
            let _ = fs::remove_file(&new);
        })?;
        fs::rename(&new, &place).map_err(at(&place))
    }

    /// The note is a help, and no condition.
    fn note(&self, phase: Phase, detail: Option<String>) {
        if let Err(error) = Note::own(phase, detail).write(&self.lock) {
            tracing::debug!(%error, "cannot write a note into the lock file");
        }
    }
}

/// Notes how an agent ended, for `status`, unless another one runs. `failure` is why it failed.
pub fn note_end(path: &Path, failure: Option<String>) {
    // A directory that cannot be locked cannot be written to either.
    if let Ok(lock) = lock(path, Duration::ZERO) {
        let phase = if failure.is_some() { Phase::Failed } else { Phase::Stopped };
        let _ = Note::own(phase, failure).write(&lock);
    }
}

fn lock(path: &Path, patience: Duration) -> io::Result<Flock<File>> {
    fs::create_dir_all(path)?;
    // Not truncated: on a full disk there may be no room for another note.
    let mut file =
        File::options().read(true).write(true).create(true).truncate(false).open(path.join(LOCK))?;
    let start = Instant::now();
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((_, errno)) if start.elapsed() >= patience => return Err(errno.into()),
            Err((same, _)) => file = same,
        }
        std::thread::sleep(PATIENCE / 50);
    }
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
