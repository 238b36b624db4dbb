//! The current problems, by where they were found, so that they vanish when they are fixed.

use std::collections::BTreeMap;

use crate::model::{Flaw, ObjectKey, ObjectName, Problem, Subject};

/// Where problems were found. A new finding replaces the earlier one of the same origin.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Origin {
    /// At a source.
    Source(Subject),
    /// While an object was read.
    Object(ObjectKey),
    /// While a Service was planned.
    Plan(ObjectName),
}

impl Origin {
    fn subject(&self) -> Subject {
        match self {
            Self::Source(subject) => subject.clone(),
            Self::Object(key) => Subject::Object(key.clone()),
            Self::Plan(service) => Subject::service(service),
        }
    }
}

/// All current problems. Costs nothing for what has none.
#[derive(Default, Debug)]
pub(super) struct Problems {
    found: BTreeMap<Origin, Vec<Problem>>,
}

impl Problems {
    /// Replaces the problems found at `origin`.
    pub(super) fn set(&mut self, origin: Origin, flaws: &[Flaw]) {
        if flaws.is_empty() {
            self.found.remove(&origin);
            return;
        }
        let subject = origin.subject();
        let problem = |flaw: &Flaw| Problem {
            subject: subject.clone(),
            field: flaw.field.to_string(),
            message: flaw.message.to_string(),
        };
        self.found.insert(origin, flaws.iter().map(problem).collect());
    }

    /// All of them, sorted.
    pub(super) fn list(&self) -> Vec<Problem> {
        let mut all: Vec<Problem> = self.found.values().flatten().cloned().collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}
