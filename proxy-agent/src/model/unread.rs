//! What a source could not read since the agent was started: the Services that may be there all the same.

use std::collections::BTreeSet;

use super::ObjectName;

/// Services of which objects may be where the source cannot read them.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Unread {
    /// Of any Service: not even the names can be read.
    anything: bool,
    services: BTreeSet<ObjectName>,
}

impl Unread {
    /// Of any Service.
    pub fn anything() -> Self {
        Self { anything: true, services: BTreeSet::new() }
    }

    /// Of this Service.
    pub fn of(service: ObjectName) -> Self {
        Self { anything: false, services: BTreeSet::from([service]) }
    }

    /// Adds those of `other`.
    pub fn add(&mut self, other: &Self) {
        self.anything |= other.anything;
        self.services.extend(other.services.iter().cloned());
    }

    /// Whether everything has been read.
    pub fn is_nothing(&self) -> bool {
        !self.anything && self.services.is_empty()
    }

    /// Whether there may be more of this Service than could be read.
    pub fn concerns(&self, service: &ObjectName) -> bool {
        self.anything || self.services.contains(service)
    }
}
