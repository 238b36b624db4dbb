//! What fuzzers throw at this stage: the text of manifests, and the lines of lists and watches.
//!
//! The same calls as the threads make that read files and answers, without files and without a server.

use ::kube::api::{ObjectList, WatchEvent};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::{
    Batch,
    catalog::Catalog,
    course::Course,
    documents,
    relist::{Relist, Watched},
};
use crate::model::wire;

/// A directory with one file, whose text changes.
#[derive(Default, Debug)]
pub struct Manifest(Catalog);

impl Manifest {
    /// Takes in what the file says now.
    pub fn replace(&mut self, text: &str) -> Batch {
        self.0.replace("file.yaml", documents::parse(text))
    }

    /// The file is gone.
    pub fn remove(&mut self) -> Batch {
        self.0.remove("file.yaml")
    }
}

/// Watches of all kinds at one server.
#[derive(Debug)]
pub struct Watches {
    services: Watch,
    slices: Watch,
    nodes: Watch,
}

#[derive(Debug)]
struct Watch {
    course: Course,
    relist: Relist,
}

impl Default for Watches {
    fn default() -> Self {
        let watch = || Watch { course: Course::new(), relist: Relist::default() };
        Self { services: watch(), slices: watch(), nodes: watch() }
    }
}

impl Watches {
    /// Takes in a page of a list, or a line of a watch; nothing of what cannot be read.
    pub fn hear(&mut self, line: &str) -> Batch {
        let names =
            |kind: &str| line.contains(&format!("\"{kind}\"")) || line.contains(&format!("\"{kind}List\""));
        if names("EndpointSlice") {
            self.slices.hear::<wire::EndpointSlice>(line)
        } else if names("Node") {
            self.nodes.hear::<wire::Node>(line)
        } else {
            self.services.hear::<wire::Service>(line)
        }
    }
}

impl Watch {
    fn hear<W: Watched + DeserializeOwned + Clone>(&mut self, line: &str) -> Batch {
        if let Ok(event) = serde_json::from_str::<WatchEvent<W>>(line) {
            let heard =
                |course: &mut Course, object: &W| course.heard(object.meta().resource_version.as_deref());
            return match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    match heard(&mut self.course, &object) {
                        Ok(()) => self.relist.apply(object).into_iter().collect(),
                        Err(_) => Batch::new(),
                    }
                }
                WatchEvent::Deleted(object) => match heard(&mut self.course, &object) {
                    Ok(()) => self.relist.delete::<W>(object.key().name).into_iter().collect(),
                    Err(_) => Batch::new(),
                },
                WatchEvent::Bookmark(bookmark) => {
                    let _ = self.course.heard(Some(&bookmark.metadata.resource_version));
                    Batch::new()
                }
                WatchEvent::Error(_) => Batch::new(),
            };
        }
        let Ok(list) = serde_json::from_str::<ObjectList<W>>(line) else { return Batch::new() };
        let rest = list.metadata.continue_.filter(|token| !token.is_empty());
        let version = list.metadata.resource_version.as_deref();
        let Ok(complete) = self.course.listed(version, rest, Instant::now()) else { return Batch::new() };
        self.relist.start();
        let mut batch: Batch =
            list.items.into_iter().filter_map(|object| self.relist.apply(object)).collect();
        if complete {
            batch.extend(self.relist.sweep::<W>());
        }
        batch
    }
}
