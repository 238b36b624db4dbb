//! What is told of which object.

use crate::{
    model::{Kind, ObjectKey, ObjectName},
    plan::Problem,
};

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
    /// `action`: what was being done.
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

    /// Something of an object that `node` could not install; nothing for what is no Service.
    pub fn not_installed(problem: &Problem, node: &str) -> Option<Self> {
        let service = service(problem)?;
        Some(Self::warning(Regarding::Service(service), ("FailedToInstall", "InstallService"), problem, node))
    }

    /// HE-3, HE-5: an address that the agent should listen on at `node`, and cannot.
    pub fn not_listening(problem: &Problem, node: &str) -> Option<Self> {
        let (regarding, what) = match (service(problem), problem.field.as_str()) {
            (Some(service), _) => {
                let what = ("FailedToStartServiceHealthcheck", "StartServiceHealthcheck");
                (Regarding::Service(service), what)
            }
            (None, "healthzBindAddress") => {
                (Regarding::Node, ("FailedToStartProxierHealthcheck", "StartProxierHealthcheck"))
            }
            (None, "metricsBindAddress") => {
                (Regarding::Node, ("FailedToStartMetricServer", "StartMetricServer"))
            }
            _ => return None,
        };
        Some(Self::warning(regarding, what, problem, node))
    }

    fn warning(
        regarding: Regarding,
        (reason, action): (&'static str, &'static str),
        Problem { object: _, field, message }: &Problem,
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

fn service(problem: &Problem) -> Option<ObjectName> {
    ObjectKey::parse(&problem.object).filter(|key| key.kind == Kind::Service).map(|key| key.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(object: &str, field: &str, message: &str) -> Problem {
        Problem { object: object.into(), field: field.into(), message: message.into() }
    }

    /// HE-3, HE-5: kube-proxy's reasons, each on the object that it concerns.
    #[test]
    fn listeners_that_fail_are_announced_as_kube_proxy_does_it() {
        for (object, field, expected) in [
            (
                "Service default/web",
                "spec.healthCheckNodePort",
                Some(("default/web", "FailedToStartServiceHealthcheck")),
            ),
            ("the agent", "healthzBindAddress", Some(("", "FailedToStartProxierHealthcheck"))),
            ("the agent", "metricsBindAddress", Some(("", "FailedToStartMetricServer"))),
            ("the agent", "something", None),
        ] {
            let told = Announcement::not_listening(&problem(object, field, "cannot listen"), "n1");
            let told = told.map(|told| {
                assert!(told.warning && told.note == format!("node n1: {field}: cannot listen"), "{told:?}");
                match told.regarding {
                    Regarding::Node => (String::new(), told.reason),
                    Regarding::Service(name) => (name.to_string(), told.reason),
                }
            });
            assert_eq!(told.as_ref().map(|(name, reason)| (name.as_str(), *reason)), expected);
        }
    }

    #[test]
    fn only_services_have_events_for_what_is_not_installed() {
        let told = |object| Announcement::not_installed(&problem(object, "f", "m"), "n1");
        assert_eq!(
            told("Service default/web").map(|told| told.regarding),
            Some(Regarding::Service(ObjectName::new("default", "web")))
        );
        for object in
            ["EndpointSlice default/web-1", "Node n1", "web.yaml, document 2", "Service", "Service x"]
        {
            assert_eq!(told(object), None, "{object}");
        }
    }

    #[test]
    fn a_note_is_no_longer_than_the_api_takes() {
        let long = problem("Service a/b", "spec", &"ä".repeat(2000));
        let told = Announcement::not_installed(&long, "n1").expect("an announcement");
        assert!((NOTE - 4..=NOTE).contains(&told.note.len()) && told.note.ends_with('…'));
    }
}
