//! The selectors that a service proxy uses, and the parts of an object that they match.

use serde_json::Value;

/// The parts of an object that selectors match.
#[derive(Clone, Default, Debug)]
pub(super) struct Facts {
    labels: Box<[String]>,
    namespace: String,
    name: String,
    cluster_ip: String,
    node: String,
}

impl Facts {
    pub(super) fn of(object: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let labels = object["metadata"]["labels"].as_object();
        Self {
            labels: labels.map(|labels| labels.keys().cloned().collect()).unwrap_or_default(),
            namespace: text(&object["metadata"]["namespace"]),
            name: text(&object["metadata"]["name"]),
            cluster_ip: text(&object["spec"]["clusterIP"]),
            node: text(&object["spec"]["nodeName"]),
        }
    }
}

/// One requirement.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Requirement {
    /// `!label`
    WithoutLabel(String),
    /// `spec.clusterIP!=value`
    ClusterIpIsNot(String),
    /// `metadata.name=value`
    NameIs(String),
    /// `spec.nodeName=value`
    NodeIs(String),
    /// A request for one namespace.
    NamespaceIs(String),
}

/// All requirements of a request.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Selector(Vec<Requirement>);

impl Selector {
    /// Parses `labelSelector` and `fieldSelector`; an error for any other form of requirement.
    pub(super) fn parse(labels: &str, fields: &str) -> Result<Self, String> {
        let split = |text: &'static str, from: &str| {
            let parts: Vec<String> =
                from.split(',').filter(|part| !part.is_empty()).map(str::to_owned).collect();
            (text, parts)
        };
        let mut requirements = Vec::new();
        for (what, parts) in [split("labelSelector", labels), split("fieldSelector", fields)] {
            for part in parts {
                let unknown = || format!("{what} {part:?} is not known to the double");
                requirements.push(match (what, part.split_once("!="), part.split_once('=')) {
                    ("labelSelector", None, None) if part.starts_with('!') => {
                        Requirement::WithoutLabel(part[1..].to_owned())
                    }
                    ("fieldSelector", Some(("spec.clusterIP", value)), _) => {
                        Requirement::ClusterIpIsNot(value.to_owned())
                    }
                    ("fieldSelector", None, Some(("metadata.name", value))) => {
                        Requirement::NameIs(value.to_owned())
                    }
                    ("fieldSelector", None, Some(("spec.nodeName", value))) => {
                        Requirement::NodeIs(value.to_owned())
                    }
                    _ => return Err(unknown()),
                });
            }
        }
        Ok(Self(requirements))
    }

    /// The same, in one namespace.
    pub(super) fn within(mut self, namespace: Option<&str>) -> Self {
        self.0.extend(namespace.map(|namespace| Requirement::NamespaceIs(namespace.to_owned())));
        self
    }

    pub(super) fn matches(&self, facts: &Facts) -> bool {
        self.0.iter().all(|requirement| match requirement {
            Requirement::WithoutLabel(label) => !facts.labels.contains(label),
            Requirement::ClusterIpIsNot(value) => facts.cluster_ip != *value,
            Requirement::NameIs(value) => facts.name == *value,
            Requirement::NodeIs(value) => facts.node == *value,
            Requirement::NamespaceIs(value) => facts.namespace == *value,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn selectors_say_what_matches_and_unknown_ones_are_errors() {
        let selector = Selector::parse("!a/proxy", "spec.clusterIP!=None").expect("known");
        let matches = |object: Value| selector.matches(&Facts::of(&object));
        assert!(matches(json!({"metadata": {"name": "x"}, "spec": {"clusterIP": "10.0.0.1"}})));
        assert!(!matches(json!({"metadata": {"name": "x"}, "spec": {"clusterIP": "None"}})));
        assert!(!matches(json!({"metadata": {"name": "x", "labels": {"a/proxy": ""}}})));
        let named = Selector::parse("", "metadata.name=n1").expect("known");
        assert!(named.matches(&Facts::of(&json!({"metadata": {"name": "n1"}}))));
        assert!(!named.matches(&Facts::of(&json!({"metadata": {"name": "n2"}}))));
        for (labels, fields) in [("a=b", ""), ("", "spec.type=x"), ("", "metadata.name!=n1")] {
            assert!(Selector::parse(labels, fields).is_err(), "{labels} {fields}");
        }
    }
}
