//! The node that a plan is for: its name, zone and addresses.

use std::collections::HashSet;

use proxy_common::Address;

use super::Family;

/// The node's own point of view.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    /// Its name: endpoints with this `nodeName` are local (EP-5).
    pub(super) node: &'a str,
    /// Its zone, if it has one (EP-11).
    pub(super) zone: Option<&'a str>,
    /// Addresses that are the node's own (PO-18).
    pub(super) own_addresses: &'a HashSet<Address>,
    /// Its addresses, the most important one first.
    pub(super) addresses: &'a [Address],
    /// Why restricted LoadBalancer IPs cannot be served here, if they cannot (ST-8).
    pub(super) cannot_restrict: Option<&'a str>,
}

impl View<'_> {
    /// The address of a family that stands for the node.
    pub(super) fn primary(&self, family: Family) -> Option<Address> {
        let mut found = self.addresses.iter().filter(|address| address.is_v4() == (family == Family::V4));
        found.next().copied()
    }
}
