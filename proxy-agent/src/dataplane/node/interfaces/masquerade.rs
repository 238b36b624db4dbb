//! INTERFACES: for each uplink, the address that the node masquerades with if the kernel's FIB lookup does not return
//! one (before 6.7), and the longest packet.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use proxy_common::{Address, Interface};

use crate::dataplane::node::netlink::{Network, Route, Routes};

/// Documentation addresses (RFC 5737 and 3849), as stand-ins for any destination.
const EVERYWHERE_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const EVERYWHERE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

/// What a pass has found of the ways out: pods on one bridge have the same.
#[derive(Default)]
pub(super) struct Towards(BTreeMap<u32, Interface>);

impl Towards {
    /// INTERFACES' element of a device, by the routes through it or, if it is a port, through its bridge.
    pub(super) fn of(&mut self, network: &Network, index: u32, routes: &Routes) -> Interface {
        let way = network.bridge_of(index).map_or(index, |bridge| bridge.index);
        let ask = |address| routes.source_towards(address, Some(way));
        *self.0.entry(way).or_insert_with(|| interface(network, way, ask))
    }
}

/// The element of `device`. `ask` returns the source address that the kernel chooses towards an address through it.
fn interface(network: &Network, device: u32, ask: impl Fn(Address) -> Option<Address>) -> Interface {
    let preferred = |v4| preferred(network, device, v4, &ask);
    Interface {
        v4: preferred(true).unwrap_or(IpAddr::from(Ipv4Addr::UNSPECIFIED).into()),
        v6: preferred(false).unwrap_or(Address::ANY_V6),
        longest: network.narrowest.get(&device).copied().unwrap_or(u32::MAX),
        flags: 0,
    }
}

/// The preferred source of the device's most general route, else the source that the kernel chooses for it, else an
/// address of the device.
fn preferred(
    network: &Network,
    device: u32,
    v4: bool,
    ask: impl Fn(Address) -> Option<Address>,
) -> Option<Address> {
    let is_ours = |route: &&Route| route.device == device && route.destination.is_ipv4() == v4;
    let best = network
        .routes
        .iter()
        .filter(is_ours)
        .filter(|route| !is_link_local(&route.destination))
        .min_by_key(|route| (route.length != 0, route.gateway.is_none(), route.length));
    let of_route = best.and_then(|route| {
        let source = route.source.filter(|source| !is_link_local(source)).map(Address::from);
        source.or_else(|| ask(towards(route).into()))
    });
    of_route.or_else(|| {
        let own = network.addresses.iter().filter(|found| found.device == device && found.usable);
        own.map(|found| found.address).find(|ip| ip.is_ipv4() == v4).map(Address::from)
    })
}

/// An address that the route leads to.
fn towards(route: &Route) -> IpAddr {
    match route.gateway {
        Some(gateway) if gateway.is_ipv4() == route.destination.is_ipv4() && !is_link_local(&gateway) => {
            gateway
        }
        _ if route.length > 0 => route.destination,
        _ if route.destination.is_ipv4() => EVERYWHERE_V4.into(),
        _ => EVERYWHERE_V6.into(),
    }
}

fn is_link_local(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::node::netlink::Assigned;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// `destination/length [via gateway] [src source]` of device 2.
    fn route(text: &str) -> Route {
        let mut words = text.split(' ');
        let (destination, length) = words.next().and_then(|first| first.split_once('/')).expect("a prefix");
        let words: Vec<&str> = words.collect();
        let after =
            |word: &str| words.iter().position(|found| *found == word).map(|place| ip(words[place + 1]));
        Route {
            device: 2,
            destination: ip(destination),
            length: length.parse().expect("a length"),
            gateway: after("via"),
            source: after("src"),
        }
    }

    #[test]
    fn the_most_general_route_decides() {
        let asked = |address: Address| match IpAddr::from(address).to_string().as_str() {
            "192.0.2.1" | "203.0.113.1" => Some(ip("192.0.2.10").into()),
            "10.0.0.1" => Some(ip("10.0.0.5").into()),
            "2001:db8::1" => Some(ip("2001:db8::10").into()),
            _ => None,
        };
        let own = |text: &str, usable| Assigned { device: 2, address: ip(text), usable };
        for (routes, addresses, v4, v6) in [
            // The default route asks for one, or the kernel tells.
            (
                vec!["10.0.0.0/8 src 10.0.0.5", "0.0.0.0/0 via 192.0.2.1 src 192.0.2.20"],
                vec![],
                "192.0.2.20",
                "::",
            ),
            (vec!["10.0.0.0/8 src 10.0.0.5", "0.0.0.0/0 via 192.0.2.1"], vec![], "192.0.2.10", "::"),
            // A default route without a gateway, and one whose gateway means something on its link only.
            (vec!["0.0.0.0/0", "::/0 via fe80::1"], vec![], "192.0.2.10", "2001:db8::10"),
            // A gateway before the link's own range.
            (vec!["10.2.0.0/24 src 10.2.0.9", "10.1.0.0/16 via 10.0.0.1"], vec![], "10.0.0.5", "::"),
            // Nothing but addresses: the first that is usable.
            (
                vec![],
                vec![own("10.3.0.1", false), own("10.3.0.2", true), own("fd00::1", true)],
                "10.3.0.2",
                "fd00::1",
            ),
            (vec!["fe80::/64"], vec![own("fe80::5", false)], "0.0.0.0", "::"),
        ] {
            let network = Network {
                addresses,
                routes: routes.iter().map(|text| route(text)).collect(),
                ..Network::default()
            };
            let found = interface(&network, 2, asked);
            let text = |address: Address| IpAddr::from(address).to_string();
            assert_eq!((text(found.v4).as_str(), text(found.v6).as_str()), (v4, v6), "{routes:?}");
            let other = interface(&network, 3, asked);
            assert_eq!(
                (text(other.v4).as_str(), text(other.v6).as_str()),
                ("0.0.0.0", "::"),
                "of another device"
            );
        }
    }
}
