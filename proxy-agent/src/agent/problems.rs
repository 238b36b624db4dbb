//! What is wrong now: gathered from all stages for the report, and told in the log and as Events when it is new.

use std::{collections::HashSet, time::Instant};

use tracing::{error, warn};

use super::{follow::Agent, not_installed};
use crate::{announce::Announcement, plan::Problem};

impl Agent {
    /// Tells what is wrong that was not wrong before, and writes the report if it says something new.
    pub(super) fn write_report(&mut self) {
        let mut problems = self.problems();
        let of_listeners = problems.len();
        problems.extend(self.serve.problems());
        self.tell_new(&problems, of_listeners);
        self.report.devices = self.interfaces.devices();
        self.report.problems = problems;
        if let Err(error) = self.run_dir.write(&self.report) {
            error!(%error, "the report for `sidestep status` could not be written");
        }
    }

    /// What is wrong in all stages but with the listeners.
    fn problems(&mut self) -> Vec<Problem> {
        let mut problems = self.planner.problems();
        problems.extend(self.not_installed.iter().map(not_installed::problem));
        problems.extend(self.misconfigured.iter().cloned());
        let node = &self.report.node;
        // What the source says of the Node, that it cannot be listed, is nearer to the cause.
        let told = problems.iter().any(|problem| problem.object.strip_prefix("Node ") == Some(node));
        let (synced, known) = (self.report.synced, told || self.planner.knows_node());
        problems.extend(self.no_node.problem(node, synced, known, Instant::now()));
        problems.extend(self.dataplane.clients_problem().map(not_installed::clients));
        problems.extend(self.reserved_ports.problem().cloned());
        problems.extend(self.interfaces.problems().iter().cloned());
        problems
    }

    /// Logs and announces what the last report does not have; the first so many are not of listeners.
    fn tell_new(&mut self, problems: &[Problem], of_listeners: usize) {
        let known: HashSet<&Problem> = self.report.problems.iter().collect();
        let node = &self.report.node;
        for (number, problem) in problems.iter().enumerate() {
            if known.contains(problem) {
                continue;
            }
            warn!("{problem}");
            self.announcer.tell(if number < of_listeners {
                Announcement::not_installed(problem, node)
            } else {
                Announcement::not_listening(problem, node)
            });
        }
    }
}
