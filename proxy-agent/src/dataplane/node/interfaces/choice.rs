//! Which devices get the packet programs: one pure function.
//!
//! North-south traffic arrives at the devices that lead out of the node, and reaches other nodes' pods through them
//! or through tunnels: these are uplinks. Of a bond, a team or a bridge only the master sees packets as the stack
//! does, and of stacked VLANs only the device with the routes, so each packet passes one ingress program.
//!
//! Devices that lead to one pod each (the node's ends of their veths, taps of virtual machines) see what comes out of that
//! pod, also where they are ports of the CNI's bridge. The bridge itself is no such device: pods' packets to each other do not
//! pass it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use proxy_common::Interface;
use serde::{Deserialize, Serialize};

use crate::dataplane::node::netlink::{Kind, Link, LinkLayer, Network, Route};

/// Devices of one kind that the user asks for.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub enum Devices {
    /// All of them.
    #[default]
    Auto,
    /// Those with a matching name. An empty list: none.
    Named(Vec<glob::Pattern>),
}

impl Devices {
    /// None of them.
    pub const NONE: Self = Self::Named(Vec::new());

    /// Whether no device is wanted.
    pub fn is_nothing(&self) -> bool {
        matches!(self, Self::Named(names) if names.is_empty())
    }

    fn has(&self, name: &str) -> bool {
        match self {
            Self::Auto => true,
            Self::Named(names) => names.iter().any(|pattern| pattern.matches(name)),
        }
    }
}

/// The devices that the user asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Where north-south traffic arrives.
    pub uplinks: Devices,
    /// Those that lead to a pod.
    pub pods: Devices,
    /// `masqueradeAll` (CF-10): north-south traffic to local pods is masqueraded as well, at egress of all devices that lead
    /// to pods.
    pub masquerade_all: bool,
}

impl Wanted {
    /// Whether no device is wanted.
    pub fn is_nothing(&self) -> bool {
        self.uplinks.is_nothing() && self.pods.is_nothing()
    }

    /// These uplinks, and no devices of pods.
    pub const fn of_uplinks(uplinks: Devices) -> Self {
        Self { uplinks, pods: Devices::NONE, masquerade_all: false }
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
    /// It leads to pods of this node, and what leaves there is masqueraded.
    Pods,
    /// It leads to one pod.
    Pod,
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
            Self::Pod => "leads to a pod",
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
    /// Of its element of INTERFACES.
    pub(super) flags: u32,
}

impl Chosen {
    /// Whether it leads to a pod, and is no uplink.
    pub(super) const fn of_pod(&self) -> bool {
        self.flags & Interface::INSIDE != 0
    }
}

/// Chooses devices, in the kernel's order. `node` holds the addresses of the Node object, `hooked` the devices with
/// programs attached, and whether they are pods'.
pub(super) fn choose(
    network: &Network,
    wanted: &Wanted,
    node: &BTreeSet<IpAddr>,
    hooked: &BTreeMap<u32, bool>,
) -> Vec<Chosen> {
    let keeps_source = if wanted.masquerade_all { 0 } else { Interface::KEEPS_SOURCE };
    let chosen = |link: &Link| {
        let before = hooked.get(&link.index).copied();
        let uplink = why_uplink(network, wanted, link, node, before == Some(false));
        let pod = || why_pod(network, wanted, link, node, before == Some(true));
        let uplink = uplink.map(|why| described(link, why, 0));
        let pod = || Some(described(link, pod()?, Interface::INSIDE | keeps_source));
        let pods = || {
            let pods =
                wanted.masquerade_all && link.up && !is_port(network, link) && leads_to_pods(network, link);
            pods.then(|| described(link, Why::Pods, 0))
        };
        uplink.or_else(pod).or_else(pods)
    };
    network.links.iter().filter_map(chosen).collect()
}

/// The devices among these, with their flags, that are still there.
pub(super) fn still_there(network: &Network, hooked: &BTreeMap<u32, u32>) -> Vec<Chosen> {
    let chosen = |link: &Link| Some(described(link, Why::Before, *hooked.get(&link.index)?));
    network.links.iter().filter_map(chosen).collect()
}

fn described(link: &Link, why: Why, flags: u32) -> Chosen {
    Chosen { index: link.index, name: link.name.clone(), header: header(link.layer), why, flags }
}

fn why_uplink(
    network: &Network,
    wanted: &Wanted,
    link: &Link,
    node: &BTreeSet<IpAddr>,
    before: bool,
) -> Option<Why> {
    match &wanted.uplinks {
        named @ Devices::Named(_) => (named.has(&link.name) && (link.up || before)).then_some(Why::Named),
        Devices::Auto if link.loopback || is_port(network, link) || link.kind == Some(Kind::Vrf) => None,
        Devices::Auto => {
            let reason = reason(network, link, node).filter(|_| link.up);
            reason.or_else(|| before.then_some(Why::Before))
        }
    }
}

/// Whether it is the node's end of a pod's wire.
fn why_pod(
    network: &Network,
    wanted: &Wanted,
    link: &Link,
    node: &BTreeSet<IpAddr>,
    before: bool,
) -> Option<Why> {
    let is_wire = match &link.kind {
        Some(Kind::Veth) => true,
        Some(Kind::Tun) => header(link.layer) == Header::Ethernet,
        Some(Kind::Other(kind)) => kind == "netkit",
        _ => false,
    };
    if !is_wire || !wanted.pods.has(&link.name) {
        return None;
    }
    let leads = match network.bridge_of(link.index) {
        Some(bridge) => leads_to_pods(network, bridge) && !leads_out(network, bridge, node),
        None => !is_port(network, link) && leads_to_pods(network, link),
    };
    let pod = (leads && link.up).then_some(Why::Pod);
    pod.or_else(|| before.then_some(Why::Before))
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

/// Whether a bridge has an uplink among its ports, or is one: pods there have other gateways than the node. A route to a gateway
/// may go to a pod.
fn leads_out(network: &Network, bridge: &Link, node: &BTreeSet<IpAddr>) -> bool {
    let mut ports = network.links.iter().filter(|link| link.master == Some(bridge.index));
    matches!(reason(network, bridge, node), Some(Why::DefaultRoute | Why::NodeAddress)) || ports.any(is_card)
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
