//! The source addresses of a network namespace's packets.
//!
//! Normally the one that the route to a restricted LoadBalancer IP prefers. Without such a route, or if the
//! LoadBalancer IP is bound here so that the route is local, it is the first address of an interface; on the node an
//! address of the Node object comes first.

use std::net::IpAddr;

use nix::{ifaddrs::getifaddrs, net::if_::InterfaceFlags};
use proxy_common::{Address, ClientAddresses};

use super::Sought;
use crate::dataplane::node::{netlink::Routes, system::ip_of};

/// The addresses of those in the calling thread's network namespace, which has this cookie.
pub(in super::super) fn here(routes: &Routes, cookie: u64, sought: &Sought) -> ClientAddresses {
    let preferred = |vip: Option<Address>| vip.and_then(|vip| routes.source_towards(vip, None));
    let [v4, v6] = sought.vips.map(preferred);
    let interfaces = if v4.is_none() || v6.is_none() { interface_addresses() } else { Vec::new() };
    let v4 = v4.or_else(|| first(&interfaces, true, &sought.nodes));
    let v6 = v6.or_else(|| first(&interfaces, false, &sought.nodes));
    ClientAddresses::new(cookie, v4, v6)
}

/// The first global address of a family.
fn first(addresses: &[IpAddr], v4: bool, nodes: &[Address]) -> Option<Address> {
    let global = |ip: &&IpAddr| match ip {
        IpAddr::V4(ip) => v4 && !ip.is_loopback() && !ip.is_unspecified(),
        IpAddr::V6(ip) => !v4 && !ip.is_loopback() && !ip.is_unspecified() && !ip.is_unicast_link_local(),
    };
    let all = || addresses.iter().filter(global).map(|ip| Address::from(*ip));
    all().find(|address| nodes.contains(address)).or_else(|| all().next())
}

/// The addresses of the interfaces that are up, in the interfaces' order.
fn interface_addresses() -> Vec<IpAddr> {
    let Ok(interfaces) = getifaddrs() else { return Vec::new() };
    interfaces
        .filter(|interface| interface.flags.contains(InterfaceFlags::IFF_UP))
        .filter_map(|interface| ip_of(&interface))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ST-8: with several addresses, the first that is global, and the node's before others.
    #[test]
    fn the_first_global_address_counts_and_the_nodes_before_others() {
        let of =
            |texts: &[&str]| texts.iter().map(|text| text.parse().expect("an address")).collect::<Vec<_>>();
        let addresses =
            of(&["127.0.0.1", "::1", "fe80::1", "10.244.1.1", "192.0.2.10", "fd00::1", "2001:db8::10"]);
        let text = |found: Option<Address>| found.map(|address| address.to_string());
        assert_eq!(text(first(&addresses, true, &[])).as_deref(), Some("10.244.1.1"));
        assert_eq!(text(first(&addresses, false, &[])).as_deref(), Some("fd00::1"));
        let node = of(&["192.0.2.10", "2001:db8::10"]).into_iter().map(Address::from).collect::<Vec<_>>();
        assert_eq!(text(first(&addresses, true, &node)).as_deref(), Some("192.0.2.10"));
        assert_eq!(text(first(&addresses, false, &node)).as_deref(), Some("2001:db8::10"));
        assert_eq!(first(&of(&["127.0.0.1", "fe80::1"]), true, &[]), None);
        assert_eq!(first(&of(&["127.0.0.1", "fe80::1"]), false, &[]), None);
    }
}
