//! Something that could not be used or installed, and what it is about.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer, ser::SerializeStruct as _};

use super::Subject;

/// Something that could not be used or installed. Everything else works; the report names this.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Deserialize)]
pub struct Problem {
    /// What it is about.
    pub subject: Subject,
    /// The field, such as `spec.ports[0].port`.
    pub field: String,
    /// The cause and the remedy.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { subject, field, message } = self;
        write!(f, "{subject}: {field}: {message}")
    }
}

/// With the subject in words as `object`, for people. It is not read back.
impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { subject, field, message } = self;
        let mut written = serializer.serialize_struct("Problem", 4)?;
        written.serialize_field("object", &subject.to_string())?;
        written.serialize_field("subject", subject)?;
        written.serialize_field("field", field)?;
        written.serialize_field("message", message)?;
        written.end()
    }
}

#[cfg(test)]
mod tests {
    use std::{net::IpAddr, path::PathBuf};

    use super::*;
    use crate::model::{Kind, ObjectKey, ObjectName, Position};

    #[test]
    fn every_subject_has_its_words_and_survives_the_report() {
        let web = ObjectName::new("default", "web");
        let file = || "web.yaml".to_owned();
        let position = |item| Position { document: 2, item };
        for (subject, words) in [
            (Subject::File { file: file() }, "web.yaml"),
            (Subject::Document { file: file(), position: position(None) }, "web.yaml, document 2"),
            (
                Subject::Document { file: file(), position: position(Some(0)) },
                "web.yaml, document 2, items[0]",
            ),
            (
                Subject::Definition { file: file(), object: ObjectKey::new(Kind::Service, web.clone()) },
                "web.yaml, Service default/web",
            ),
            (Subject::Directory { path: PathBuf::from("/manifests") }, "/manifests"),
            (Subject::Watch { kind: Kind::EndpointSlice }, "watch of EndpointSlices"),
            (Subject::service(&web), "Service default/web"),
            (Subject::node("n1"), "Node n1"),
            (Subject::HealthCheck(web), "Service default/web"),
            (Subject::Healthz, "the agent"),
            (Subject::Metrics, "the agent"),
            (Subject::Configuration { path: Some(PathBuf::from("c.yaml")) }, "configuration c.yaml"),
            (Subject::Configuration { path: None }, "command line"),
            (Subject::ThisNode, "this node"),
            (Subject::device("eth0"), "eth0"),
            (Subject::Address { address: IpAddr::from([10, 0, 0, 1]) }, "address 10.0.0.1"),
            (Subject::SourcePorts { ports: "1-2".to_owned() }, "source ports 1-2"),
            (Subject::NodePorts { ports: String::new() }, "NodePorts"),
        ] {
            let problem = Problem { subject, field: "f".to_owned(), message: "m".to_owned() };
            let json = serde_json::to_value(&problem).expect("JSON");
            assert_eq!(
                (json["object"].as_str(), problem.to_string()),
                (Some(words), format!("{words}: f: m"))
            );
            assert_eq!(serde_json::from_value::<Problem>(json).expect("a problem"), problem);
        }
        let service =
            serde_json::to_value(Subject::service(&ObjectName::new("default", "web"))).expect("JSON");
        assert_eq!(
            service,
            serde_json::json!({"type": "object", "kind": "Service", "namespace": "default", "name": "web"})
        );
    }
}
