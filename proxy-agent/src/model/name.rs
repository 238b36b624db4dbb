//! How objects are named.

use std::{cmp::Ordering, fmt};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use triomphe::ThinArc;

/// The kinds of objects that Sidestep reads.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Kind {
    /// `v1` Service.
    Service,
    /// `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlice,
    /// `v1` Node.
    Node,
    /// `v1` Pod.
    Pod,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Service, Self::EndpointSlice, Self::Node, Self::Pod];

    /// The value of `kind`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Node => "Node",
            Self::Pod => "Pod",
        }
    }

    /// The value of `apiVersion`.
    pub const fn api_version(self) -> &'static str {
        match self {
            Self::Service | Self::Node | Self::Pod => "v1",
            Self::EndpointSlice => "discovery.k8s.io/v1",
        }
    }
}

/// Namespace and name; a Node's namespace is empty. Every table of the agent that is about an object has its name, so it is
/// one pointer, and all copies are one allocation.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ObjectName(ThinArc<(), u8>);

/// Between namespace and name: in no name, and before every character, so that bytes are in the order of the pairs.
const BETWEEN: u8 = 0;

impl ObjectName {
    /// Of these parts.
    pub fn new(namespace: &str, name: &str) -> Self {
        let mut bytes = Vec::with_capacity(namespace.len() + 1 + name.len());
        bytes.extend_from_slice(namespace.as_bytes());
        bytes.push(BETWEEN);
        bytes.extend_from_slice(name.as_bytes());
        Self(ThinArc::from_header_and_slice((), &bytes))
    }

    /// `metadata.namespace`.
    pub fn namespace(&self) -> &str {
        self.parts().0
    }

    /// `metadata.name`.
    pub fn name(&self) -> &str {
        self.parts().1
    }

    fn parts(&self) -> (&str, &str) {
        let text = std::str::from_utf8(&self.0.slice).unwrap_or_default();
        text.split_once(char::from(BETWEEN)).unwrap_or_default()
    }
}

impl Default for ObjectName {
    fn default() -> Self {
        Self::new("", "")
    }
}

impl PartialOrd for ObjectName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// By namespace, then by name.
impl Ord for ObjectName {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.slice.cmp(&other.0.slice)
    }
}

impl fmt::Debug for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (namespace, name) = self.parts();
        if namespace.is_empty() { f.write_str(name) } else { write!(f, "{namespace}/{name}") }
    }
}

/// How a name is written in the report.
#[derive(Serialize, Deserialize)]
struct WrittenName {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    namespace: String,
    name: String,
}

impl Serialize for ObjectName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (namespace, name) = self.parts();
        WrittenName { namespace: namespace.into(), name: name.into() }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ObjectName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let WrittenName { namespace, name } = WrittenName::deserialize(deserializer)?;
        Ok(Self::new(&namespace, &name))
    }
}

/// What identifies an object.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct ObjectKey {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    #[serde(flatten)]
    pub name: ObjectName,
}

impl ObjectKey {
    /// Of these parts.
    pub fn new(kind: Kind, name: ObjectName) -> Self {
        Self { kind, name }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.name(), self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_pointer_and_ordered_by_namespace_first() {
        assert_eq!(size_of::<ObjectName>(), size_of::<usize>());
        let name = ObjectName::new("a-b", "x");
        assert_eq!((name.namespace(), name.name(), name.to_string()), ("a-b", "x", "a-b/x".to_owned()));
        assert!(ObjectName::new("a", "z") < name, "although `-` comes before `/`");
        assert_eq!(ObjectName::new("", "node").to_string(), "node");
    }
}
