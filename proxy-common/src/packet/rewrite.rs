//! One address and port of a packet for another.

use super::{Change, Edit, Network, checksum, network::Fragment, transport};
use crate::address::{Address, Port, Protocol};

/// Which address of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// Where it comes from.
    Source,
    /// Where it goes.
    Destination,
}

/// Puts `new` in place of `old`, an address of the packet with its port. `None`: the packet must be dropped.
///
/// Later fragments have no ports, and no checksum of their own: the first fragment's covers them.
#[inline(always)]
pub fn rewrite(
    edit: &mut impl Edit,
    network: &Network,
    side: Side,
    old: (Address, Port),
    new: (Address, Port),
) -> Option<()> {
    let (address, port) = match side {
        Side::Source => (network.source_offset(), network.transport),
        Side::Destination => (network.destination_offset(), network.transport + 2),
    };
    let difference = checksum::of_address(&old.0, &new.0);
    if !network.v6 {
        edit.network_checksum(network.checksum_offset(), difference)?;
    }
    if !matches!(network.fragment, Fragment::Later) {
        if let Some(offset) = transport::checksum_offset(network.protocol) {
            let optional = network.protocol == Protocol::Udp as u8;
            let change = Change { pseudo_header: true, v6: network.v6, optional };
            edit.transport_checksum(network.transport + offset, difference, change)?;
            if old.1.number != new.1.number {
                let difference = checksum::of_port(old.1, new.1);
                let change = Change { pseudo_header: false, ..change };
                edit.transport_checksum(network.transport + offset, difference, change)?;
            }
        }
        if old.1.number != new.1.number {
            edit.store(port, &new.1.to_network())?;
        }
    }
    store_address(edit, network, address, &new.0)
}

/// Puts an address where the header at hand has it.
#[inline(always)]
pub(super) fn store_address(
    edit: &mut impl Edit,
    network: &Network,
    offset: u32,
    address: &Address,
) -> Option<()> {
    if network.v6 {
        edit.store(offset, address)
    } else {
        let [.., v4] = address.words();
        edit.store(offset, &v4)
    }
}
