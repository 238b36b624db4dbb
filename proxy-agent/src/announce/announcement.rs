//! Turns a problem into the Event of the object that it concerns.

use crate::model::{Kind, ObjectKey, ObjectName, Problem, Subject};

/// The object that `kubectl describe` shows an event with.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Regarding {
    /// The node that the agent runs on.
    Node,
    /// A Service.
    Service(ObjectName),
}

/// An Event to be.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Announcement {
    pub(super) regarding: Regarding,
    /// Whether its type is Warning.
    pub(super) warning: bool,
    /// `reason`: kube-proxy's word for it where it has one (HE-5).
    pub(super) reason: &'static str,
    /// `action`: the action that failed, or began.
    pub(super) action: &'static str,
    /// `note`, at most [`NOTE`] bytes.
    pub(super) note: String,
}

/// Longest `note` that the API takes, in bytes.
const NOTE: usize = 1024;

impl Announcement {
    /// HE-5: the agent has been started.
    pub fn starting() -> Self {
        Self {
            regarding: Regarding::Node,
            warning: false,
            reason: "Starting",
            action: "StartServiceProxy",
            note: concat!("sidestep ", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }

    /// HE-3, HE-5: a problem at `node`; nothing where it concerns no object that has Events.
    pub fn of(problem: &Problem, node: &str) -> Option<Self> {
        let (regarding, what) = match &problem.subject {
            Subject::Object(ObjectKey { kind: Kind::Service, name }) => {
                (Regarding::Service(name.clone()), ("FailedToInstall", "InstallService"))
            }
            Subject::HealthCheck(service) => {
                let what = ("FailedToStartServiceHealthcheck", "StartServiceHealthcheck");
                (Regarding::Service(service.clone()), what)
            }
            Subject::Healthz => {
                (Regarding::Node, ("FailedToStartProxierHealthcheck", "StartProxierHealthcheck"))
            }
            Subject::Metrics => (Regarding::Node, ("FailedToStartMetricServer", "StartMetricServer")),
            _ => return None,
        };
        Some(Self::warning(regarding, what, problem, node))
    }

    fn warning(
        regarding: Regarding,
        (reason, action): (&'static str, &'static str),
        Problem { subject: _, field, message }: &Problem,
        node: &str,
    ) -> Self {
        let mut note = format!("node {node}: {field}: {message}");
        if note.len() > NOTE {
            note.truncate(note.floor_char_boundary(NOTE - '…'.len_utf8()));
            note.push('…');
        }
        Self { regarding, warning: true, reason, action, note }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(subject: Subject, message: &str) -> Problem {
        Problem { subject, field: "field".into(), message: message.into() }
    }

    /// HE-3, HE-5: kube-proxy's reasons, each on the object that it concerns.
    #[test]
    fn problems_are_announced_with_the_object_that_they_concern() {
        let web = ObjectName::new("default", "web");
        let with = |kind| Subject::Object(ObjectKey::new(kind, web.clone()));
        for (subject, expected) in [
            (Subject::HealthCheck(web.clone()), Some(("default/web", "FailedToStartServiceHealthcheck"))),
            (Subject::Healthz, Some(("", "FailedToStartProxierHealthcheck"))),
            (Subject::Metrics, Some(("", "FailedToStartMetricServer"))),
            (with(Kind::Service), Some(("default/web", "FailedToInstall"))),
            (with(Kind::EndpointSlice), None),
            (Subject::node("n1"), None),
            (Subject::File { file: "web.yaml".into() }, None),
            (Subject::ThisNode, None),
        ] {
            let told = Announcement::of(&problem(subject, "it failed"), "n1");
            let told = told.map(|told| {
                assert!(told.warning && told.note == "node n1: field: it failed", "{told:?}");
                match told.regarding {
                    Regarding::Node => (String::new(), told.reason),
                    Regarding::Service(name) => (name.to_string(), told.reason),
                }
            });
            assert_eq!(told.as_ref().map(|(name, reason)| (name.as_str(), *reason)), expected);
        }
    }

    #[test]
    fn a_note_is_no_longer_than_the_api_takes() {
        let long = problem(Subject::service(&ObjectName::new("a", "b")), &"ä".repeat(2000));
        let told = Announcement::of(&long, "n1").expect("an announcement");
        assert!((NOTE - 4..=NOTE).contains(&told.note.len()) && told.note.ends_with('…'));
    }
}
