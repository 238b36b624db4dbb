//! Objects, and the history of their changes.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use hyper::body::Bytes;
use serde_json::{Value, json};

use super::selector::{Facts, Selector};

/// The kinds that are served.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// `v1` Service.
    Service,
    /// `discovery.k8s.io/v1` `EndpointSlice`.
    EndpointSlice,
    /// `v1` Node.
    Node,
    /// `v1` Pod.
    Pod,
}

impl Kind {
    /// The path of the list of all of them.
    pub(super) const fn path(self) -> &'static str {
        match self {
            Self::Service => "/api/v1/services",
            Self::EndpointSlice => "/apis/discovery.k8s.io/v1/endpointslices",
            Self::Node => "/api/v1/nodes",
            Self::Pod => "/api/v1/pods",
        }
    }

    /// `apiVersion` and `kind` of one.
    pub(super) const fn type_meta(self) -> (&'static str, &'static str) {
        match self {
            Self::Service => ("v1", "Service"),
            Self::EndpointSlice => ("discovery.k8s.io/v1", "EndpointSlice"),
            Self::Node => ("v1", "Node"),
            Self::Pod => ("v1", "Pod"),
        }
    }

    pub(super) const ALL: [Self; 4] = [Self::Service, Self::EndpointSlice, Self::Node, Self::Pod];

    fn of(object: &Value) -> Self {
        let kind = object["kind"].as_str().unwrap_or_default();
        let known = Self::ALL.into_iter().find(|known| known.type_meta().1 == kind);
        known.unwrap_or_else(|| panic!("the double serves no {kind:?}: {object}"))
    }
}

/// An object at one version.
#[derive(Debug)]
pub(super) struct Stored {
    facts: Facts,
    pub(super) json: Bytes,
}

/// A change of one object.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) version: u64,
    kind: Kind,
    before: Option<Arc<Stored>>,
    after: Option<Arc<Stored>>,
    /// The last state, with the version of the deletion.
    deleted: Option<Bytes>,
}

impl Change {
    /// The event of this change in a watch of `kind` with this selector: type and object.
    pub(super) fn seen_by(&self, kind: Kind, selector: &Selector) -> Option<(&'static str, Bytes)> {
        if self.kind != kind {
            return None;
        }
        let matching = |stored: &Option<Arc<Stored>>| {
            stored.as_ref().filter(|stored| selector.matches(&stored.facts)).cloned()
        };
        match (matching(&self.before), matching(&self.after)) {
            (None, None) => None,
            (None, Some(now)) => Some(("ADDED", now.json.clone())),
            (Some(_), Some(now)) => Some(("MODIFIED", now.json.clone())),
            (Some(before), None) => {
                let last = self.after.as_ref().map(|now| now.json.clone());
                let last = self.deleted.clone().or(last);
                Some(("DELETED", last.unwrap_or_else(|| before.json.clone())))
            }
        }
    }
}

/// All objects, and their changes since the history was last forgotten.
#[derive(Clone, Debug)]
pub(super) struct Store {
    version: u64,
    objects: BTreeMap<(Kind, String, String), Arc<Stored>>,
    history: VecDeque<Change>,
    /// The earliest version at which a watch can start.
    oldest: u64,
}

impl Default for Store {
    fn default() -> Self {
        // Not 0, which means "any" in a request.
        Self { version: 1, objects: BTreeMap::new(), history: VecDeque::new(), oldest: 1 }
    }
}

impl Store {
    pub(super) const fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn put(&mut self, mut object: Value) -> u64 {
        let kind = Kind::of(&object);
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let key = (kind, text(&object["metadata"]["namespace"]), text(&object["metadata"]["name"]));
        let stored = Arc::new(Stored { facts: Facts::of(&object), json: object.to_string().into() });
        let before = self.objects.insert(key, Arc::clone(&stored));
        let change = Change { version: self.version, kind, before, after: Some(stored), deleted: None };
        self.history.push_back(change);
        self.version
    }

    pub(super) fn delete(&mut self, kind: Kind, namespace: &str, name: &str) {
        let Some(before) = self.objects.remove(&(kind, namespace.to_owned(), name.to_owned())) else {
            return;
        };
        self.version += 1;
        let mut last: Value = serde_json::from_slice(&before.json).expect("what was written as JSON");
        last["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let deleted = Some(Bytes::from(last.to_string()));
        self.history.push_back(Change {
            version: self.version,
            kind,
            before: Some(before),
            after: None,
            deleted,
        });
    }

    pub(super) fn compact(&mut self) {
        self.history.clear();
        self.oldest = self.version;
    }

    /// The objects of a kind that match, in the order of their names.
    pub(super) fn list(&self, kind: Kind, selector: &Selector) -> Vec<Bytes> {
        let first = (kind, String::new(), String::new());
        let of_kind = self.objects.range(first..).take_while(|((its, ..), _)| *its == kind);
        of_kind
            .filter(|(_, stored)| selector.matches(&stored.facts))
            .map(|(_, stored)| stored.json.clone())
            .collect()
    }

    /// The changes after `version`; nothing if they are forgotten.
    pub(super) fn since(&self, version: u64) -> Option<Vec<Change>> {
        if version < self.oldest {
            return None;
        }
        let first = self.history.partition_point(|change| change.version <= version);
        Some(self.history.range(first..).cloned().collect())
    }
}
