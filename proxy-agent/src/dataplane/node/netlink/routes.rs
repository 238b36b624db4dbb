//! Asking the kernel for the route to an address, and its source address (`ip route get`). The kernel's side is
//! `inet_rtm_getroute` and `inet6_rtm_getroute`. No packet is sent.

use std::{
    net::IpAddr,
    os::fd::{AsRawFd, RawFd},
};

use netlink_packet_core::NLM_F_ACK;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteType},
};
use netlink_sys::protocols::NETLINK_ROUTE;
use proxy_common::Address;

use super::{conversation::Conversation, network::gateway};
use crate::dataplane::Error;

/// A `NETLINK_ROUTE` socket.
#[derive(Debug)]
pub(crate) struct Routes {
    conversation: Conversation<RouteNetlinkMessage>,
}

impl AsRawFd for Routes {
    fn as_raw_fd(&self) -> RawFd {
        self.conversation.as_raw_fd()
    }
}

impl Routes {
    /// A socket in the namespace of the calling thread.
    pub(crate) fn new() -> Result<Self, Error> {
        Ok(Self { conversation: Conversation::new(NETLINK_ROUTE)? })
    }

    /// The source address of a packet from here to `destination`, through `device` if one is named; nothing without a
    /// route, or for a local destination.
    pub(crate) fn source_towards(&self, destination: Address, device: Option<u32>) -> Option<Address> {
        preferred_source(&self.towards(destination, device)?)
    }

    /// How packets from here to `destination` leave; nothing without a route, or for a local destination.
    pub(crate) fn way_towards(&self, destination: Address) -> Option<WayOut> {
        way_out(&self.towards(destination, None)?)
    }

    fn towards(&self, destination: Address, device: Option<u32>) -> Option<RouteMessage> {
        let question = RouteNetlinkMessage::GetRoute(question(destination.into(), device));
        let mut found = None;
        let each = |answer| {
            if let RouteNetlinkMessage::NewRoute(route) = answer {
                found = Some(route);
            }
        };
        self.conversation.ask(("RTM_GETROUTE", "(netlink)"), question, NLM_F_ACK, each).ok()?;
        found
    }
}

/// How packets leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct WayOut {
    /// By this device.
    pub(crate) device: u32,
    /// To this router, or to the destination itself.
    pub(crate) gateway: Option<IpAddr>,
}

fn way_out(route: &RouteMessage) -> Option<WayOut> {
    if route.header.kind != RouteType::Unicast {
        return None;
    }
    let device = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(device) => Some(*device),
        _ => None,
    });
    Some(WayOut { device: device?, gateway: route.attributes.iter().find_map(gateway) })
}

fn question(destination: IpAddr, device: Option<u32>) -> RouteMessage {
    let mut route = RouteMessage::default();
    (route.header.address_family, route.header.destination_prefix_length) = match destination {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    };
    route.attributes = vec![RouteAttribute::Destination(destination.into())];
    route.attributes.extend(device.map(RouteAttribute::Oif));
    route
}

/// `RTA_PREFSRC` of a route that leads on, not to an address of this namespace's own.
pub(super) fn preferred_source(route: &RouteMessage) -> Option<Address> {
    if route.header.kind != RouteType::Unicast {
        return None;
    }
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::PrefSource(RouteAddress::Inet(v4)) => Some(IpAddr::V4(*v4).into()),
        // Source ranges contain no link-local addresses, which mean something else on every link.
        RouteAttribute::PrefSource(RouteAddress::Inet6(v6)) if !v6.is_unicast_link_local() => {
            Some(IpAddr::V6(*v6).into())
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn the_source_is_that_of_a_route_which_leads_on() {
        let source = |text: &str| RouteAttribute::PrefSource(address(text).into());
        let to = |text: &str| RouteAttribute::Destination(address(text).into());
        for (kind, attributes, expected) in [
            (RouteType::Unicast, vec![to("203.0.113.7"), source("10.244.1.10")], Some("10.244.1.10")),
            (RouteType::Unicast, vec![RouteAttribute::Oif(3), source("fd00::10")], Some("fd00::10")),
            (RouteType::Local, vec![source("203.0.113.7")], None),
            (RouteType::Unicast, vec![to("203.0.113.7")], None),
            (RouteType::Unicast, vec![source("fe80::1")], None),
        ] {
            let mut route = RouteMessage::default();
            (route.header.kind, route.attributes) = (kind, attributes);
            let found = preferred_source(&route).map(|address| address.to_string());
            assert_eq!(found.as_deref(), expected, "{route:?}");
        }
    }

    #[test]
    fn a_route_to_an_address_of_our_own_leads_back() {
        let routes = Routes::new().expect("a socket");
        assert_eq!(routes.source_towards(address("127.0.0.1").into(), None), None);
    }
}
