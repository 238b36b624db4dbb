//! Turns a watch of one kind into changes. A repeated list yields a difference, not a new start: it marks its objects
//! as they arrive, and deletes only those left unmarked at its end.

use std::collections::HashSet;

use crate::model::{
    EndpointSlice, Event, Kind, Node, Object, ObjectKey, ObjectName, Pod, Service,
    wire::{self},
};

/// An object of the API that can be watched and read.
pub(super) trait Watched: ::kube::Resource<DynamicType = ()> {
    /// Its kind.
    const KIND: Kind;

    /// Whether an object that goes is forgotten. The Node is not: what is known of it stays true of the
    /// machine that this runs on (IN-5).
    const FORGET: bool = true;

    /// Whether lists may come from the API server's cache, and so be a moment old. A server without consistent reads from its
    /// cache reads all objects of the kind from etcd otherwise, whatever the selector: there are too many Pods for that.
    const FROM_CACHE: bool = false;

    /// Checks it and keeps what matters; nothing if it is none of a node's business.
    fn read(self) -> Option<Object>;

    /// What identifies it.
    fn key(&self) -> ObjectKey {
        let meta = self.meta();
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        ObjectKey::new(Self::KIND, ObjectName::new(namespace, meta.name.as_deref().unwrap_or_default()))
    }
}

impl Watched for wire::Service {
    const KIND: Kind = Kind::Service;

    fn read(self) -> Option<Object> {
        Service::read(self).map(Object::Service)
    }
}

impl Watched for wire::EndpointSlice {
    const KIND: Kind = Kind::EndpointSlice;

    fn read(self) -> Option<Object> {
        EndpointSlice::read(self).map(Object::EndpointSlice)
    }
}

impl Watched for wire::Node {
    const KIND: Kind = Kind::Node;
    const FORGET: bool = false;

    fn read(self) -> Option<Object> {
        Some(Object::Node(Node::read(self)))
    }
}

impl Watched for wire::Pod {
    const KIND: Kind = Kind::Pod;
    const FROM_CACHE: bool = true;

    fn read(self) -> Option<Object> {
        Some(Object::Pod(Pod::read(self)))
    }
}

/// The objects of one kind that were reported.
#[derive(Default, Debug)]
pub(super) struct Relist {
    seen: HashSet<ObjectName>,
    /// While a list is taken: those that were not on it so far.
    unlisted: HashSet<ObjectName>,
}

impl Relist {
    /// A list starts. One that starts before the one before it ended starts the marking over.
    pub(super) fn start(&mut self) {
        self.unlisted = self.seen.clone();
    }

    /// An object is there, or is now like this.
    pub(super) fn apply<W: Watched>(&mut self, object: W) -> Option<Event> {
        let name = object.key().name;
        let Some(object) = object.read() else { return self.delete::<W>(name) };
        self.unlisted.remove(&name);
        // The object's own name, so that all tables share one.
        self.seen.insert(object.key().name);
        Some(Event::Upsert(object))
    }

    /// An object is gone.
    pub(super) fn delete<W: Watched>(&mut self, name: ObjectName) -> Option<Event> {
        self.unlisted.remove(&name);
        let known = self.seen.remove(&name);
        (known && W::FORGET).then(|| Event::Delete(ObjectKey::new(W::KIND, name)))
    }

    /// A list is complete: what was not on it is gone.
    pub(super) fn sweep<W: Watched>(&mut self) -> Vec<Event> {
        let gone = std::mem::take(&mut self.unlisted);
        // All of them are taken out, forgotten or not.
        for name in &gone {
            self.seen.remove(name);
        }
        let gone = gone.into_iter().map(|name| Event::Delete(ObjectKey::new(W::KIND, name)));
        if W::FORGET { gone.collect() } else { Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What a list or watch says.
    enum Said<W> {
        Init,
        Apply(W),
        Delete(W),
        InitDone,
    }

    use Said::{Apply, Delete, Init, InitDone};

    fn service(name: &str, ip: &str) -> wire::Service {
        let metadata = json!({"name": name, "namespace": "default"});
        serde_json::from_value(json!({"metadata": metadata, "spec": {"clusterIP": ip}})).expect("a Service")
    }

    /// Runs a recorded watch; what comes out is written as `+name` or `-name`, `.` for a complete list.
    fn run<W: Watched>(said: Vec<Said<W>>) -> Vec<String> {
        let mut relist = Relist::default();
        let mut written = Vec::new();
        for said in said {
            let complete = matches!(said, InitDone);
            let mut events: Vec<Event> = match said {
                Init => {
                    relist.start();
                    Vec::new()
                }
                Apply(object) => relist.apply(object).into_iter().collect(),
                Delete(object) => relist.delete::<W>(object.key().name).into_iter().collect(),
                InitDone => relist.sweep::<W>(),
            };
            events.sort_by_key(|event| format!("{event:?}"));
            written.extend(events.iter().map(|event| match event {
                Event::Upsert(object) => format!("+{}", object.key().name.name()),
                Event::Delete(key) => format!("-{}", key.name.name()),
                other => panic!("unexpected {other:?}"),
            }));
            written.extend(complete.then(|| ".".to_owned()));
        }
        written
    }

    #[test]
    fn a_list_that_is_taken_again_is_a_difference() {
        let said = run(vec![
            Init,
            Apply(service("a", "10.0.0.1")),
            Apply(service("b", "10.0.0.2")),
            InitDone,
            Apply(service("c", "10.0.0.3")),
            Delete(service("a", "10.0.0.1")),
            Init,
            Apply(service("b", "10.0.0.2")),
            InitDone,
        ]);
        assert_eq!(said, ["+a", "+b", ".", "+c", "-a", "+b", "-c", "."]);
    }

    #[test]
    fn a_list_that_is_cut_short_deletes_nothing() {
        let said = run(vec![
            Init,
            Apply(service("a", "10.0.0.1")),
            Apply(service("b", "10.0.0.2")),
            InitDone,
            Init,
            Apply(service("a", "10.0.0.1")),
            Init,
            Apply(service("b", "10.0.0.2")),
            InitDone,
        ]);
        assert_eq!(said, ["+a", "+b", ".", "+a", "+b", "-a", "."]);
    }

    /// IN-2: a Service that becomes headless is gone; one that always was is not heard of.
    #[test]
    fn what_is_none_of_our_business_any_more_is_deleted() {
        let said = run(vec![
            Init,
            Apply(service("a", "10.0.0.1")),
            Apply(service("b", "None")),
            InitDone,
            Apply(service("a", "None")),
            Delete(service("b", "None")),
        ]);
        assert_eq!(said, ["+a", ".", "-a"]);
    }

    /// IN-5: a Node that is deleted and registers again keeps its zone and addresses in between.
    #[test]
    fn the_last_known_node_is_kept() {
        let node = || wire::Node::default();
        assert_eq!(run(vec![Init, Apply(node()), InitDone, Delete(node())]), ["+", "."]);
        assert_eq!(run(vec![Init, Apply(node()), InitDone, Init, InitDone]), ["+", ".", "."]);
    }
}
