//! A failing watch: reports the problem once when it begins, and once when it ends.

use tracing::warn;

use super::failure::Failure;
use crate::model::{Event, Flaw, Kind, Subject};

/// The last report on one kind's watch.
pub(super) struct Trouble {
    kind: Kind,
    now: Option<String>,
}

impl Trouble {
    /// All is well.
    pub(super) const fn new(kind: Kind) -> Self {
        Self { kind, now: None }
    }

    fn subject(&self) -> Subject {
        Subject::Watch { kind: self.kind }
    }

    /// Something went wrong.
    pub(super) fn came(&mut self, failure: &Failure) -> Option<Event> {
        let message = failure.to_string();
        if self.now.as_ref() == Some(&message) {
            return None;
        }
        warn!(kind = self.kind.name(), error = %failure, "the watch failed; the last known objects stay \
                                                          installed, trying again");
        self.now = Some(message.clone());
        let message = format!(
            "{message}; the last known objects stay installed; check the API server and the agent's access rights"
        );
        Some(Event::Found { subject: self.subject(), flaws: vec![Flaw::new("API server", message)] })
    }

    /// All is well again.
    pub(super) fn passed(&mut self) -> Option<Event> {
        self.now.take()?;
        Some(Event::Found { subject: self.subject(), flaws: Vec::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_reported_once_and_cleared() {
        let mut trouble = Trouble::new(Kind::Service);
        assert_eq!(trouble.passed(), None);
        let Some(Event::Found { subject, flaws }) = trouble.came(&Failure::EndedEarly) else {
            panic!("nothing was said");
        };
        assert_eq!((subject.to_string().as_str(), flaws.len()), ("watch of Services", 1));
        assert_eq!(trouble.came(&Failure::EndedEarly), None);
        assert_eq!(trouble.passed(), Some(Event::Found { subject, flaws: Vec::new() }));
        assert_eq!(trouble.passed(), None);
    }
}
