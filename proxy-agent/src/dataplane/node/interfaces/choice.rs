//! Which devices are uplinks: one pure function.
//!
//! North-south traffic arrives at the devices that lead out of the node, and reaches other nodes' pods through them
//! or through tunnels. Devices that lead to the node's own pods (their veths, the CNI's bridge) are no uplinks: the
//! socket programs serve the processes there. Of a bond, a team or a bridge only the master sees packets as the stack
//! does, and of stacked VLANs only the device with the routes, so each packet passes one ingress program.

use std::{collections::BTreeSet, fmt, net::IpAddr};

use serde::{Deserialize, Serialize};

use crate::dataplane::node::netlink::{Kind, Link, LinkLayer, Network, Route};

/// The devices that the user asks for.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All uplinks.
    #[default]
    Auto,
    /// All uplinks, and the devices that lead to this node's pods: `masqueradeAll` (CF-10) masquerades north-south
    /// traffic to local pods as well, at egress of those devices.
    WithPods,
    /// Devices with a matching name, and no others. An empty list switches north-south traffic off.
    Named(Vec<glob::Pattern>),
}

impl Wanted {
    /// Whether north-south traffic is switched off.
    pub fn is_nothing(&self) -> bool {
        matches!(self, Self::Named(names) if names.is_empty())
    }
}

/// Why a device was chosen, the strongest reason first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// It was named.
    Named,
    /// It has a default route.
    DefaultRoute,
    /// It has a route to a gateway: perhaps to other nodes' pods.
    Gateway,
    /// It is a tunnel with routes.
    Tunnel,
    /// It has an address of the Node object.
    NodeAddress,
    /// It is a network card with an address.
    Card,
    /// It leads to pods of this node.
    Pods,
    /// It was chosen before, and existing connections through it still need its programs.
    Before,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Named => "named",
            Self::DefaultRoute => "default route",
            Self::Gateway => "route to a gateway",
            Self::Tunnel => "tunnel with routes",
            Self::NodeAddress => "the Node's address",
            Self::Card => "network card with an address",
            Self::Pods => "leads to pods (masqueradeAll)",
            Self::Before => "chosen before",
        })
    }
}

/// The first header of a device's packets, which decides its programs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Header {
    Ethernet,
    /// The IP header itself.
    None,
    /// A link layer that the programs cannot parse.
    Unknown(LinkLayer),
}

/// A device to attach the packet programs to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Chosen {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) header: Header,
    pub(super) why: Why,
}

/// Chooses devices, in the kernel's order. `node` holds the addresses of the Node object, `hooked` the devices with
/// programs attached.
pub(super) fn choose(
    network: &Network,
    wanted: &Wanted,
    node: &BTreeSet<IpAddr>,
    hooked: &BTreeSet<u32>,
) -> Vec<Chosen> {
    let chosen = |link: &Link| {
        let before = hooked.contains(&link.index);
        let why = match wanted {
            Wanted::Named(names) => {
                let named = names.iter().any(|name| name.matches(&link.name));
                (named && (link.up || before)).then_some(Why::Named)
            }
            _ if link.loopback || is_port(network, link) || link.kind == Some(Kind::Vrf) => None,
            Wanted::Auto | Wanted::WithPods => {
                let pods =
                    || (*wanted == Wanted::WithPods && leads_to_pods(network, link)).then_some(Why::Pods);
                let reason = reason(network, link, node).or_else(pods).filter(|_| link.up);
                reason.or_else(|| before.then_some(Why::Before))
            }
        };
        let (index, name, header) = (link.index, link.name.clone(), header(link.layer));
        why.map(|why| Chosen { index, name, header, why })
    };
    network.links.iter().filter_map(chosen).collect()
}

/// The devices among these that are still there.
pub(super) fn still_there(network: &Network, hooked: &BTreeSet<u32>) -> Vec<Chosen> {
    let hooked = network.links.iter().filter(|link| hooked.contains(&link.index));
    let chosen = |link: &Link| Chosen {
        index: link.index,
        name: link.name.clone(),
        header: header(link.layer),
        why: Why::Before,
    };
    hooked.map(chosen).collect()
}

/// Whether its packets are another device's: of a bond, a bridge, a switch. A VRF only chooses routes.
fn is_port(network: &Network, link: &Link) -> bool {
    link.master.is_some_and(|master| {
        let master = network.links.iter().find(|other| other.index == master);
        master.is_none_or(|master| master.kind != Some(Kind::Vrf))
    })
}

fn reason(network: &Network, link: &Link, node: &BTreeSet<IpAddr>) -> Option<Why> {
    let routes = network.routes.iter().filter(|route| route.device == link.index);
    let of_route = |route: &Route| {
        if route.length == 0 {
            Some(Why::DefaultRoute)
        } else if route.gateway.is_some() {
            Some(Why::Gateway)
        } else if is_tunnel(link) && leads_somewhere(route) {
            Some(Why::Tunnel)
        } else {
            None
        }
    };
    let addresses = || network.addresses.iter().filter(|assigned| assigned.device == link.index);
    let by_route = routes.filter_map(of_route).min();
    by_route
        .or_else(|| addresses().any(|found| node.contains(&found.address)).then_some(Why::NodeAddress))
        .or_else(|| (is_card(link) && addresses().any(|found| found.usable)).then_some(Why::Card))
}

/// Whether it has a route, as the ends of pods' wires and the bridges between them have.
fn leads_to_pods(network: &Network, link: &Link) -> bool {
    network.routes.iter().any(|route| route.device == link.index && leads_somewhere(route))
}

/// Every device has a route to its own link in IPv6.
fn leads_somewhere(route: &Route) -> bool {
    match route.destination {
        IpAddr::V4(v4) => !v4.is_link_local() && !v4.is_multicast(),
        IpAddr::V6(v6) => !v6.is_unicast_link_local() && !v6.is_multicast(),
    }
}

/// Whether it is a tunnel to other machines, not a device of a pod.
fn is_tunnel(link: &Link) -> bool {
    use Kind::{
        BareUdp, ErSpan, Geneve, GreTap, GreTap6, GreTun, GreTun6, Ip6ErSpan, Ip6Tnl, IpIp, SitTun, Tun, Vti,
        Vti6, Vxlan, Wireguard, Xfrm,
    };
    match &link.kind {
        // With an Ethernet header it is a virtual machine's.
        Some(Tun) => header(link.layer) == Header::None,
        Some(
            BareUdp | ErSpan | Geneve | GreTap | GreTap6 | GreTun | GreTun6 | Ip6ErSpan | Ip6Tnl | IpIp
            | SitTun | Vti | Vti6 | Vxlan | Wireguard | Xfrm,
        ) => true,
        _ => false,
    }
}

/// Whether it is hardware, or stacked on hardware.
fn is_card(link: &Link) -> bool {
    use Kind::{Bond, IpVlan, MacVlan, Team, Vlan};
    matches!(link.kind, None | Some(Bond | IpVlan | MacVlan | Team | Vlan))
}

/// As `dev_is_mac_header_xmit` in the kernel.
fn header(layer: LinkLayer) -> Header {
    match layer {
        LinkLayer::Ether | LinkLayer::Loopback => Header::Ethernet,
        LinkLayer::None
        | LinkLayer::Void
        | LinkLayer::Rawip
        | LinkLayer::Ppp
        | LinkLayer::Tunnel
        | LinkLayer::Tunnel6
        | LinkLayer::Sit
        | LinkLayer::Ipgre
        | LinkLayer::Ip6gre => Header::None,
        other => Header::Unknown(other),
    }
}

#[cfg(test)]
#[path = "choice_tests.rs"]
mod tests;
