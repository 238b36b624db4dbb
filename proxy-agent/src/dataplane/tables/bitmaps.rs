//! ADDRESS_FILTER, NODE_PORTS and FOREIGN_PORTS: bitmaps that save packets a lookup.

use proxy_common::{
    Address, FrontendKey, Port, Protocol, Tuple, connection::foreign_bit, frontend::node_port_bit,
};

use super::mapped::Mapped;

/// The possible destinations of north-south packets: the addresses in ADDRESSES, and all of the node's own, at which
/// answers to masqueraded packets arrive.
///
/// Bits are never cleared: other addresses may share one, and connections outlive an address. A superfluous bit costs
/// packets to one in a hundred thousand other addresses a lookup.
#[derive(Debug)]
pub(crate) struct AddressFilter(pub(crate) Mapped<u64>);

impl AddressFilter {
    /// Lets packets to the address be looked at.
    pub(crate) fn add(&self, address: &Address) {
        let (word, bit) = address.filter_bit();
        self.0.set_bits(word, 0, bit);
    }
}

/// The numbers of UDP NodePorts of either family.
#[derive(Debug)]
pub(crate) struct NodePorts(pub(crate) Mapped<u64>);

impl NodePorts {
    /// Notes that a frontend is there, or, if none of the other family is, that it is not.
    pub(crate) fn set(&self, key: &FrontendKey, is_there: bool) {
        if key.any_address == 0 || key.protocol != Protocol::Udp as u8 {
            return;
        }
        let (word, bit) = node_port_bit(key.port);
        if is_there {
            self.0.set_bits(word, 0, bit);
        } else {
            self.0.clear_bits(word, 0, bit);
        }
    }

    /// Makes them these and no others.
    pub(crate) fn replace(&self, ports: impl Iterator<Item = Port>) {
        replace(&self.0, ports.map(node_port_bit));
    }
}

/// The source ports of connections that conntrack masquerades, each towards one endpoint.
#[derive(Debug)]
pub(crate) struct ForeignPorts(pub(crate) Mapped<u64>);

impl ForeignPorts {
    /// Makes them those of these connections and no others. Each is the answers': from the endpoint, to the source port.
    pub(crate) fn replace<'a>(&self, answers: impl Iterator<Item = &'a Tuple>) {
        let bit = |answer: &Tuple| {
            foreign_bit(&answer.source, answer.source_port, answer.protocol, answer.destination_port)
        };
        replace(&self.0, answers.map(bit));
    }
}

/// Makes a bitmap one of these bits and no others; a bit that stays is never cleared.
fn replace(bitmap: &Mapped<u64>, bits: impl Iterator<Item = (u32, u64)>) {
    let mut words = vec![0; bitmap.len() as usize];
    for (word, bit) in bits {
        if let Some(word) = words.get_mut(word as usize) {
            *word |= bit;
        }
    }
    for (index, word) in (0..).zip(words) {
        bitmap.store_word(index, 0, word);
    }
}

/// The frontend of the same NodePort in the other family.
pub(crate) fn other_family(key: &FrontendKey) -> FrontendKey {
    let address = if key.address.is_v4() { Address::ANY_V6 } else { Address::ANY_V4 };
    FrontendKey { address, ..*key }
}
