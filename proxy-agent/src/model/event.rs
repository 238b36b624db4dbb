//! The events of all sources: the one stream of changes that the later stages consume.

use super::{EndpointSlice, Flaw, Kind, Node, ObjectKey, ObjectName, Pod, Service, Subject, Unread};

/// An object of a kind that Sidestep reads.
#[derive(Clone, PartialEq, Debug)]
pub enum Object {
    /// A Service.
    Service(Service),
    /// An EndpointSlice.
    EndpointSlice(EndpointSlice),
    /// A Node.
    Node(Node),
    /// A Pod of this node.
    Pod(Pod),
}

impl Object {
    /// What identifies it.
    pub fn key(&self) -> ObjectKey {
        match self {
            Self::Service(service) => ObjectKey::new(Kind::Service, service.name.clone()),
            Self::EndpointSlice(slice) => ObjectKey::new(Kind::EndpointSlice, slice.name.clone()),
            Self::Node(node) => ObjectKey::new(Kind::Node, ObjectName::new("", &node.name)),
            Self::Pod(pod) => ObjectKey::new(Kind::Pod, pod.name.clone()),
        }
    }

    /// Its fields that could not be used.
    pub fn flaws(&self) -> &[Flaw] {
        match self {
            Self::Service(service) => &service.flaws,
            Self::EndpointSlice(slice) => &slice.flaws,
            Self::Node(node) => &node.flaws,
            Self::Pod(pod) => &pod.flaws,
        }
    }
}

/// A change, as a source reports it.
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    /// The object is new, or is now like this.
    Upsert(Object),
    /// The object was deleted, or no longer concerns this node.
    Delete(ObjectKey),
    /// The current problems of `subject` (a file's document, a watch). Replaces its earlier ones; an empty list clears
    /// them.
    Found {
        /// The subject.
        subject: Subject,
        /// The problems.
        flaws: Vec<Flaw>,
    },
    /// What could not be read since the source began, from now on; nothing until the first of these events. What an
    /// earlier agent installed of it stays.
    Unread(Unread),
    /// Every Pod of this node has been reported. Comes after each list of them.
    PodsListed,
    /// Everything that exists has been reported once. Comes once, after the first complete pass.
    Synced,
}
