//! Is there an agent, and what became of it? What the other commands see of it in its run directory.

use std::{
    fmt::{self, Write as _},
    fs::File,
    path::Path,
};

use nix::{
    fcntl::{Flock, FlockArg},
    sys::statvfs::{FsFlags, statvfs},
};
use serde::Serialize;

use super::{
    note::{Note, Phase},
    report::Report,
    run_dir::{LOCK, read_report},
};

/// What is to be seen of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presence {
    /// Whether it runs, or how it ended.
    pub state: State,
    /// The process that runs, or ran last; nothing if none ever did.
    pub pid: Option<u32>,
    /// What it waits for, why its report is out of date, or why it failed.
    pub detail: Option<String>,
    /// Its report; of an agent that is starting there is none.
    pub report: Option<Report>,
}

/// Whether an agent runs, or how it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// No agent has used this run directory, at least not since the node booted.
    NeverRan,
    /// It runs, and has not read and installed everything yet.
    Starting,
    /// It runs, and everything is installed that can be.
    Running,
    /// It ended because it was asked to.
    Stopped,
    /// It ended with an error.
    Failed,
    /// It ended without a word: it was killed, or crashed.
    Died,
}

impl Presence {
    /// Looks into the run directory.
    pub fn of(path: &Path) -> Self {
        let report = read_report(path);
        let Ok(file) = File::open(path.join(LOCK)) else {
            let state = if report.is_some() { State::Died } else { State::NeverRan };
            return Self { state, pid: report.as_ref().map(|report| report.pid), detail: None, report };
        };
        let note = Note::read(&file);
        let runs = Flock::lock(file, FlockArg::LockSharedNonblock).is_err();
        let seen = Self::from(runs, note, report);
        if runs && seen.report.is_none() && seen.detail.is_none() {
            return Self { detail: what_is_wrong_with(path), ..seen };
        }
        seen
    }

    fn from(runs: bool, note: Option<Note>, report: Option<Report>) -> Self {
        // Older versions wrote no note.
        let pid = note.as_ref().map(|note| note.pid).or_else(|| report.as_ref().map(|report| report.pid));
        let detail = note.as_ref().and_then(|note| note.detail.clone());
        if !runs {
            let state = match note.map(|note| note.phase) {
                None if report.is_none() => State::NeverRan,
                Some(Phase::Stopped) => State::Stopped,
                Some(Phase::Failed) => State::Failed,
                None | Some(Phase::Starting | Phase::Running) => State::Died,
            };
            let detail = detail.filter(|_| state == State::Failed);
            return Self { state, pid, detail, report };
        }
        // A report of an earlier process says nothing of this one.
        let report = report.filter(|report| Some(report.pid) == pid);
        // Without a note the run directory has no room for one.
        let has_reported = note.is_none_or(|note| note.phase == Phase::Running);
        let synced = report.as_ref().map_or(has_reported, |report| report.synced);
        Self { state: if synced { State::Running } else { State::Starting }, pid, detail, report }
    }

    /// Whether it runs.
    pub const fn is_running(&self) -> bool {
        matches!(self.state, State::Starting | State::Running)
    }
}

/// In words, such as `0.1.0, process 12, node n1, manifests in /m: in sync`.
impl fmt::Display for Presence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { state, pid, detail, report } = self;
        let mut who = match (report, pid) {
            (Some(Report { version, pid, node, source, .. }), _) if self.is_running() => {
                format!("{version}, process {pid}, node {node}, {source}")
            }
            (_, Some(pid)) => format!("process {pid}"),
            (_, None) => "an agent".to_owned(),
        };
        if let (Some(detail), true) = (detail, *state == State::Failed) {
            let _ = write!(who, " ended with: {detail}");
        }
        match state {
            State::NeverRan => f.write_str(
                "never ran here since the node booted, or with another --run-dir; Services stay as they are",
            ),
            State::Starting => match (detail, report) {
                (Some(detail), _) => write!(f, "{who}: starting; {detail}"),
                (None, Some(_)) => write!(f, "{who}: starting, still reading"),
                (None, None) => write!(f, "{who}: starting, loading the programs"),
            },
            State::Running => match (detail, report) {
                (None, _) => write!(f, "{who}: in sync"),
                (Some(detail), Some(_)) => {
                    write!(f, "{who}: in sync, but what follows of it is out of date: {detail}")
                }
                (Some(detail), None) => write!(f, "{who}: running, but without a report: {detail}"),
            },
            State::Stopped => write!(f, "not running: {who} was stopped; Services stay as they are"),
            State::Failed => write!(f, "not running: {who}; Services stay as they are"),
            State::Died => {
                write!(f, "not running: {who} is dead (killed, or crashed); Services stay as they are")
            }
        }
    }
}

/// Why an agent could leave no word in its run directory, as far as one sees.
fn what_is_wrong_with(path: &Path) -> Option<String> {
    let found = statvfs(path).ok()?;
    let path = path.display();
    if found.flags().contains(FsFlags::ST_RDONLY) {
        return Some(format!("the file system of {path} is read-only"));
    }
    let full = found.blocks() > 0 && found.blocks_available() == 0;
    full.then(|| format!("the file system of {path} has no room left"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(pid: u32, synced: bool) -> Report {
        Report {
            version: "1.2.3".to_owned(),
            pid,
            node: "n1".to_owned(),
            source: "manifests in /m".to_owned(),
            cgroup_root: "/c".into(),
            pin_dir: "/p".into(),
            synced,
            takeover: None,
            devices: Vec::new(),
            pod_devices: Vec::new(),
            host_only: false,
            passed_by: Vec::new(),
            pods: Vec::new(),
            problems: Vec::new(),
        }
    }

    #[test]
    fn each_state_of_an_agent_has_words_of_its_own() {
        let note =
            |phase, detail: Option<&str>| Some(Note { pid: 7, phase, detail: detail.map(str::to_owned) });
        let full = Some("cannot write /run/x: No space left");
        for (runs, note, report, state, words) in [
            (false, None, None, State::NeverRan, "never ran"),
            (true, note(Phase::Starting, None), None, State::Starting, "process 7: starting, loading"),
            // The report is the one of the agent before.
            (
                true,
                note(Phase::Starting, None),
                Some(report(6, true)),
                State::Starting,
                "process 7: starting, loading",
            ),
            (
                true,
                note(Phase::Starting, Some("waits for cgroup2")),
                None,
                State::Starting,
                "starting; waits for cgroup2",
            ),
            (
                true,
                note(Phase::Running, None),
                Some(report(7, false)),
                State::Starting,
                "n1, manifests in /m: starting, still",
            ),
            (
                true,
                note(Phase::Running, None),
                Some(report(7, true)),
                State::Running,
                "manifests in /m: in sync",
            ),
            (
                true,
                note(Phase::Running, full),
                Some(report(7, true)),
                State::Running,
                "out of date: cannot write",
            ),
            (
                true,
                note(Phase::Running, full),
                Some(report(6, true)),
                State::Running,
                "without a report: cannot write",
            ),
            (
                true,
                note(Phase::Running, full),
                Some(report(7, false)),
                State::Starting,
                "starting; cannot write",
            ),
            (false, note(Phase::Running, None), Some(report(7, true)), State::Died, "process 7 is dead"),
            (false, note(Phase::Starting, None), None, State::Died, "process 7 is dead"),
            (
                false,
                note(Phase::Stopped, None),
                Some(report(7, true)),
                State::Stopped,
                "process 7 was stopped",
            ),
            (
                false,
                note(Phase::Failed, Some("no cgroup2")),
                None,
                State::Failed,
                "process 7 ended with: no cgroup2",
            ),
            // Of a version before 0.2.0.
            (false, None, Some(report(5, true)), State::Died, "process 5 is dead"),
            (true, None, Some(report(5, true)), State::Running, "process 5, node n1"),
        ] {
            let seen = Presence::from(runs, note, report);
            assert_eq!(seen.state, state, "{words}");
            assert!(seen.to_string().contains(words), "{seen}, not {words}");
            assert_eq!(seen.is_running(), runs);
        }
    }
}
