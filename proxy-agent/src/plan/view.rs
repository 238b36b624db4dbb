//! Where the plan is made for: what one node knows of itself.

use std::collections::HashSet;

use proxy_common::Address;

/// The node's own point of view.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    /// Its name: endpoints with this `nodeName` are local (EP-5).
    pub(super) node: &'a str,
    /// Its zone, if it has one (EP-11).
    pub(super) zone: Option<&'a str>,
    /// Addresses that are the node's own (PO-18).
    pub(super) own_addresses: &'a HashSet<Address>,
}
