//! Counts of incoming changes, for metrics.

use crate::model::{Kind, Touched};

/// What changed since somebody last asked. Objects that came again as they were do not count.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Tally {
    /// Services that came, changed or went.
    pub services: u64,
    /// EndpointSlices that came, changed or went.
    pub slices: u64,
    /// When the changes were made that led to the slices that came or changed, in milliseconds since 1970.
    pub triggered: Vec<i64>,
}

impl Tally {
    /// Notes an object of this kind. `triggered` is 0 if it does not say.
    pub(super) fn note(&mut self, kind: Kind, news: &Touched, triggered: i64) {
        if *news == Touched::Nothing {
            return;
        }
        match kind {
            Kind::Service => self.services += 1,
            Kind::EndpointSlice => self.slices += 1,
            Kind::Node | Kind::Pod => {}
        }
        if triggered != 0 {
            self.triggered.push(triggered);
        }
    }
}
