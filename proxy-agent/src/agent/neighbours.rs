//! Looks from time to time at what works beside Sidestep on the node, and turns what needs a person into problems.

use std::time::{Duration, Instant};

use crate::{
    dataplane::{Beside, Options},
    model::{Problem, Subject},
};

/// How often: a look is a few system calls, and somebody who has removed another service proxy waits for the answer.
const PERIOD: Duration = Duration::from_mins(1);

/// What was found at the last look.
#[derive(Debug)]
pub(super) struct Neighbours {
    due: Instant,
    problems: Vec<Problem>,
}

impl Neighbours {
    /// The first look.
    pub(super) fn look(options: &Options) -> Self {
        let problems = match Beside::look(&options.cgroup_root, &options.pin_dir) {
            Ok(beside) => problems(&beside),
            Err(error) => {
                vec![problem("programs of others", format!("cannot be listed: {error}"))]
            }
        };
        Self { due: Instant::now() + PERIOD, problems }
    }

    /// Looks again if it is time; returns whether something changed.
    pub(super) fn look_again(&mut self, options: &Options, now: Instant) -> bool {
        if now < self.due {
            return false;
        }
        let before = std::mem::replace(self, Self::look(options));
        before.problems != self.problems
    }

    /// What needs a person.
    pub(super) fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

fn problems(beside: &Beside) -> Vec<Problem> {
    let proxies = beside.service_proxies().into_iter().map(|told| problem("other service proxies", told));
    let programs = beside.excluded().chain(beside.displaced());
    proxies.chain(programs.map(|told| problem("programs of others", told))).collect()
}

fn problem(field: &str, message: String) -> Problem {
    Problem { subject: Subject::ThisNode, field: field.to_owned(), message }
}
