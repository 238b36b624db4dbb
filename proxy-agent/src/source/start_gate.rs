//! Nothing starts before every list is complete (IN-7).

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

use crate::model::Kind;

/// Waits for the first complete list of every kind.
#[derive(Debug)]
pub(super) struct StartGate {
    awaited: Mutex<BTreeSet<Kind>>,
}

impl StartGate {
    /// Waits for all kinds.
    pub(super) fn new() -> Self {
        Self { awaited: Mutex::new(Kind::ALL.into()) }
    }

    /// Notes a complete list. True for the one that was awaited last, once.
    pub(super) fn is_opened_by(&self, kind: Kind) -> bool {
        let mut awaited = self.awaited.lock().unwrap_or_else(PoisonError::into_inner);
        awaited.remove(&kind) && awaited.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// IN-7.
    #[test]
    fn the_gate_opens_once_with_the_last_list() {
        let gate = StartGate::new();
        let kinds = [Kind::Service, Kind::Service, Kind::Node, Kind::EndpointSlice, Kind::EndpointSlice];
        let opened = kinds.map(|kind| gate.is_opened_by(kind));
        assert_eq!(opened, [false, false, false, true, false]);
    }
}
