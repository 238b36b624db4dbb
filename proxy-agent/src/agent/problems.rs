//! The current problems: collects them from all stages for the report, and writes new ones to the log and to Events.

use std::{collections::HashSet, time::Instant};

use tracing::warn;

use super::{follow::Agent, not_installed, report::PodHere};
use crate::{
    announce::Announcement,
    dataplane::Progress,
    model::{Kind, Problem, Subject},
};

impl Agent {
    /// Logs and announces new problems, and writes the report if it changed.
    pub(super) fn write_report(&mut self) {
        // The second time says that it cannot be written, or can be again.
        for _ in 0..2 {
            let problems = self.problems();
            self.tell_new(&problems);
            (self.report.devices, self.report.pod_devices) =
                (self.interfaces.devices(), self.interfaces.of_pods());
            self.report.passed_by = self.dataplane.passed_by();
            let fails = |kind| problems.iter().any(|problem| problem.subject == Subject::Watch { kind });
            if let Some(pods) = self.planner.take_pods() {
                self.report.pods = pods.map(PodHere::from).collect();
            } else if fails(Kind::Pod) && !fails(Kind::Service) {
                // Not for want of an API server: it may not read them, or not any more.
                self.report.pods.clear();
            }
            self.report.problems = problems;
            if !self.run_dir.write(&self.report) {
                break;
            }
        }
    }

    /// The problems of all stages.
    fn problems(&mut self) -> Vec<Problem> {
        let mut problems = self.planner.problems();
        problems.extend(self.not_installed.iter().map(not_installed::problem));
        problems.extend(self.growth.problem().cloned());
        problems.extend(self.misconfigured.iter().cloned());
        let node = &self.report.node;
        // A source that cannot list Nodes is closer to the cause.
        let told = problems.iter().any(|problem| problem.subject == Subject::node(node));
        let (synced, known) = (self.report.synced, told || self.planner.knows_node());
        problems.extend(self.no_node.problem(node, synced, known, Instant::now()));
        problems.extend(self.dataplane.namespaces_problem().map(not_installed::namespaces));
        problems.extend(self.dataplane.stale_problem().map(not_installed::stale_sockets));
        problems.extend(self.reserved_ports.problem().cloned());
        problems.extend(self.neighbours.problems().iter().cloned());
        problems.extend(self.interfaces.problems().iter().cloned());
        problems.extend(self.serve.problems());
        let obstacle = self.report.takeover.as_ref().and_then(Progress::obstacle);
        problems.extend(obstacle.map(|message| Problem {
            subject: Subject::ThisNode,
            field: "--take-over".to_owned(),
            message,
        }));
        problems.extend(self.run_dir.problem());
        problems.extend(self.pins.problem().map(not_installed::pins));
        problems
    }

    /// Logs and announces the problems that the last report does not have.
    fn tell_new(&mut self, problems: &[Problem]) {
        let known: HashSet<&Problem> = self.report.problems.iter().collect();
        let node = &self.report.node;
        for problem in problems.iter().filter(|problem| !known.contains(problem)) {
            warn!("{problem}");
            self.announcer.tell(Announcement::of(problem, node));
        }
    }
}
