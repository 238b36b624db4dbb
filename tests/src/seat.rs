//! Where an agent runs: a node, the cgroup that its programs are attached to, and its directories.

use std::{ffi::OsString, path::PathBuf, process::Command};

use crate::{cgroup::Cgroup, place::Place};

/// A node for one agent at a time.
#[derive(Clone, Debug)]
pub struct Seat {
    /// The node.
    pub place: Place,
    /// The cgroup of the node's processes and pods.
    pub root: Cgroup,
    /// Where agents pin their maps and links.
    pub pin_directory: PathBuf,
    /// The agents' run directory, with `report.json`.
    pub run_directory: PathBuf,
    /// Where agents write their log.
    pub log: PathBuf,
    /// The node's name in manifests.
    pub node_name: &'static str,
}

impl Seat {
    /// `sidestep` with these arguments and the node's directories, executed by another command if `wrapper` is not
    /// empty.
    pub(crate) fn wrapped_command(
        &self,
        wrapper: &[OsString],
        binary: PathBuf,
        arguments: &[&str],
    ) -> Command {
        let mut command = match wrapper {
            [] => Command::new(binary),
            [first, rest @ ..] => {
                let mut command = Command::new(first);
                command.args(rest).arg(binary);
                command
            }
        };
        let Self { place: _, root, pin_directory, run_directory, log: _, node_name: _ } = self;
        command.args(arguments).arg("--pin-dir").arg(pin_directory).arg("--run-dir").arg(run_directory);
        command.arg("--cgroup-root").arg(root.path());
        command
    }
}
