//! What commands ask of the node's devices, without the agent.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::Path,
};

use proxy_common::Interface;

use super::choice::{Devices, Wanted, choose};
use crate::dataplane::{Error, node::netlink::Network, tables::pinned::Tables};

/// The devices that lead to pods and have programs.
pub fn pod_devices(pin_dir: &Path) -> Result<BTreeSet<u32>, Error> {
    let table = Tables::interfaces(pin_dir)?;
    let entries = table.iter().filter_map(Result::ok);
    Ok(entries.filter(|(_, found)| found.flags & Interface::INSIDE != 0).map(|(index, _)| index).collect())
}

/// The names of the devices that an agent without --interface would choose here, for a node without an agent.
pub fn would_choose() -> Result<Vec<String>, Error> {
    let (node, hooked) = (BTreeSet::new(), BTreeMap::new());
    let chosen = choose(&Network::here()?, &Wanted::of_uplinks(Devices::Auto), &node, &hooked);
    Ok(chosen.into_iter().map(|device| device.name).collect())
}

/// The devices by which packets to these addresses leave the node, by the longest matching route; nothing for its own
/// addresses. Ignores policy routing.
pub fn leaves_by(addresses: &BTreeSet<IpAddr>) -> Result<BTreeMap<IpAddr, String>, Error> {
    let network = Network::here()?;
    let is_own = |address: &IpAddr| network.addresses.iter().any(|own| own.address == *address);
    let leaves = |address: &IpAddr| {
        let routes = network.routes.iter().filter(|route| route.leads_to(*address));
        let route = routes.max_by_key(|route| route.length)?;
        let link = network.links.iter().find(|link| link.index == route.device)?;
        Some((*address, link.name.clone()))
    };
    Ok(addresses.iter().filter(|address| !is_own(address)).filter_map(leaves).collect())
}
