//! The node's own addresses: those that it answers NodePorts on, and those that are its own in any sense.

use std::{
    collections::{BTreeSet, HashSet},
    net::IpAddr,
};

use proxy_common::{Address, AddressBits};

use super::{NodePortAddresses, addresses::Addresses};

/// What is known of them, from the interfaces and the Node object.
#[derive(Default, Debug)]
pub(super) struct NodeAddresses {
    /// Which of them answer NodePorts (CF-8).
    chosen: NodePortAddresses,
    /// Addresses of the node's own interfaces, as the caller gave them.
    local: Vec<Address>,
    /// Addresses that have the bit NODE.
    answering: BTreeSet<Address>,
    /// Both the interfaces' and the Node's: an address that is the node's own in any sense (PO-18).
    own: HashSet<Address>,
}

impl NodeAddresses {
    /// Tells which of its addresses the node answers NodePorts on (CF-8, CF-11). Once.
    pub(super) fn choose(&mut self, chosen: NodePortAddresses, addresses: &mut Addresses) {
        for any in [Address::ANY_V4, Address::ANY_V6] {
            if !chosen.answers_at_loopback(any.is_v4()) {
                addresses.set_own(any, AddressBits::SILENT_LOOPBACK);
            }
        }
        self.chosen = chosen;
    }

    /// Replaces the addresses of the interfaces; whether they are others than before.
    pub(super) fn set_local(&mut self, addresses: Vec<IpAddr>) -> bool {
        let mut addresses: Vec<Address> = addresses.into_iter().map(Address::from).collect();
        addresses.sort_unstable();
        addresses.dedup();
        let differ = addresses != self.local;
        self.local = addresses;
        differ
    }

    /// Follows the Node's addresses, else those of the interfaces (without those that mean something else on every node:
    /// loopback and link-local ones).
    pub(super) fn update(&mut self, of_node: &[Address], addresses: &mut Addresses) {
        let meaningful = |address: &&Address| match IpAddr::from(**address) {
            IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_unspecified(),
            IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unspecified() && !v6.is_unicast_link_local(),
        };
        let answering = self.chosen.choose(of_node, &self.local);
        let answering: BTreeSet<Address> = answering.iter().filter(meaningful).copied().collect();
        self.own = self.local.iter().chain(of_node).copied().collect();
        let before = std::mem::replace(&mut self.answering, answering);
        for address in before.difference(&self.answering) {
            addresses.set_own(*address, AddressBits::NONE);
        }
        for address in self.answering.difference(&before) {
            addresses.set_own(*address, AddressBits::NODE);
        }
    }

    /// Addresses of the node's own interfaces.
    pub(super) fn local(&self) -> &[Address] {
        &self.local
    }

    /// Addresses that are the node's own in any sense.
    pub(super) fn own(&self) -> &HashSet<Address> {
        &self.own
    }

    /// Where the node listens for load balancers' questions (HE-3).
    pub(super) fn listening(&self) -> Vec<IpAddr> {
        self.chosen.listening(self.answering.iter().copied().map(IpAddr::from))
    }
}
