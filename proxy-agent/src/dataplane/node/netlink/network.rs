//! The devices, addresses and routes of a network namespace. The kernel's side is `rtnl_dump_ifinfo`,
//! `inet_dump_ifaddr`, `inet_dump_fib` and their IPv6 twins.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use netlink_packet_core::NLM_F_DUMP;
pub(crate) use netlink_packet_route::link::{InfoKind as Kind, LinkLayerType as LinkLayer};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope},
    link::{LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkMessage},
    route::{RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteType, RouteVia},
};
use netlink_sys::protocols::NETLINK_ROUTE;

use super::conversation::Conversation;
use crate::dataplane::Error;

/// A device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Link {
    /// Its number, which the kernel may give to another device after this one is gone.
    pub(crate) index: u32,
    pub(crate) name: String,
    /// Whether it is switched on, with or without a carrier.
    pub(crate) up: bool,
    pub(crate) loopback: bool,
    /// What its packets begin with.
    pub(crate) layer: LinkLayer,
    /// `vxlan`, `bridge` and the like; nothing for a network card.
    pub(crate) kind: Option<Kind>,
    /// The device that it is a port of.
    pub(crate) master: Option<u32>,
}

/// An address of a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Assigned {
    pub(crate) device: u32,
    pub(crate) address: IpAddr,
    /// Whether it means the same everywhere, and may be used as a source.
    pub(crate) usable: bool,
}

/// One way of a unicast route: through a device, perhaps to a gateway.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Route {
    pub(crate) device: u32,
    pub(crate) destination: IpAddr,
    /// Of the destination; 0 for a default route.
    pub(crate) length: u8,
    /// A router. IPv4 may go by one in IPv6.
    pub(crate) gateway: Option<IpAddr>,
    /// The route's preferred source.
    pub(crate) source: Option<IpAddr>,
}

impl Route {
    /// Whether its range holds an address.
    pub(crate) fn leads_to(&self, address: IpAddr) -> bool {
        let bits = |address: IpAddr| match address {
            IpAddr::V4(v4) => u128::from(u32::from(v4)) << 96,
            IpAddr::V6(v6) => u128::from(v6),
        };
        let differ = bits(self.destination) ^ bits(address);
        self.destination.is_ipv4() == address.is_ipv4()
            && (self.length == 0 || differ >> (128 - u32::from(self.length)) == 0)
    }
}

/// What there is.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Network {
    pub(crate) links: Vec<Link>,
    pub(crate) addresses: Vec<Assigned>,
    pub(crate) routes: Vec<Route>,
    /// The least MTU of a device, and of the routes through it that ask for one, in bytes.
    pub(crate) narrowest: BTreeMap<u32, u32>,
}

impl Network {
    /// The bridge that a device is a port of.
    pub(crate) fn bridge_of(&self, device: u32) -> Option<&Link> {
        let link = |index| self.links.iter().find(|link| link.index == index);
        link(link(device)?.master?).filter(|master| master.kind == Some(Kind::Bridge))
    }

    /// What there is in the namespace of the calling thread.
    pub(crate) fn here() -> Result<Self, Error> {
        let conversation = Conversation::<RouteNetlinkMessage>::new(NETLINK_ROUTE)?;
        let list = |call, question: &RouteNetlinkMessage| {
            conversation.list((call, "(netlink)"), question, NLM_F_DUMP)
        };
        let mut network = Self::default();

        let mut question = LinkMessage::default();
        // Counters of a hundred devices are most of the answer.
        question.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        for answer in list("RTM_GETLINK", &RouteNetlinkMessage::GetLink(question))? {
            if let RouteNetlinkMessage::NewLink(link) = answer {
                let mtu = link.attributes.iter().find_map(|attribute| match attribute {
                    LinkAttribute::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
                network.narrowest.extend(mtu.map(|mtu| (link.header.index, mtu)));
                network.links.extend(self::link(link));
            }
        }
        let question = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        for answer in list("RTM_GETADDR", &question)? {
            if let RouteNetlinkMessage::NewAddress(address) = answer {
                network.addresses.extend(assigned(&address));
            }
        }
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut question = RouteMessage::default();
            question.header.address_family = family;
            // A kernel without IPv6 has no such routes, and says so.
            let answers = match list("RTM_GETROUTE", &RouteNetlinkMessage::GetRoute(question)) {
                Err(Error::System { error, .. }) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                    continue;
                }
                answers => answers?,
            };
            for answer in answers {
                if let RouteNetlinkMessage::NewRoute(message) = answer {
                    let found = routes(&message);
                    if let Some(mtu) = mtu(&message) {
                        for route in &found {
                            let least = network.narrowest.entry(route.device).or_insert(mtu);
                            *least = mtu.min(*least);
                        }
                    }
                    network.routes.extend(found);
                }
            }
        }
        Ok(network)
    }
}

pub(super) fn link(message: LinkMessage) -> Option<Link> {
    let LinkMessage { header, attributes, .. } = message;
    let flags = header.flags;
    let mut link = Link {
        index: header.index,
        name: String::new(),
        up: flags.contains(LinkFlags::Up),
        loopback: flags.contains(LinkFlags::Loopback),
        layer: header.link_layer_type,
        kind: None,
        master: None,
    };
    for attribute in attributes {
        match attribute {
            // Read up to its zero, as the kernel writes it.
            LinkAttribute::IfName(name) => {
                name.split('\0').next().unwrap_or_default().clone_into(&mut link.name);
            }
            LinkAttribute::Controller(master) => link.master = Some(master),
            LinkAttribute::LinkInfo(infos) => {
                link.kind = infos.into_iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    (!link.name.is_empty()).then_some(link)
}

pub(super) fn assigned(message: &AddressMessage) -> Option<Assigned> {
    let AddressMessage { header, attributes, .. } = message;
    // In IPv4 IFA_LOCAL is ours, and IFA_ADDRESS the other end of a point-to-point link; IPv6 mostly has the latter
    // only.
    let local = attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(ip) => Some(*ip),
        _ => None,
    });
    let address = local.or_else(|| {
        attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(ip) => Some(*ip),
            _ => None,
        })
    })?;
    let flags = attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Flags(flags) => Some(*flags),
        _ => None,
    });
    let flags = flags.unwrap_or(AddressFlags::from_bits_retain(header.flags.bits().into()));
    let unusable = AddressFlags::Secondary
        | AddressFlags::Tentative
        | AddressFlags::Dadfailed
        | AddressFlags::Deprecated;
    let usable = header.scope == AddressScope::Universe && !flags.intersects(unusable);
    Some(Assigned { device: header.index, address, usable })
}

/// A route that leads on, one for each next hop.
pub(super) fn routes(message: &RouteMessage) -> Vec<Route> {
    let RouteMessage { header, attributes, .. } = message;
    // Skips exceptions that the kernel learned for single destinations (redirects, path MTUs).
    if header.kind != RouteType::Unicast || header.flags.contains(RouteFlags::Cloned) {
        return Vec::new();
    }
    let (any, bits): (IpAddr, u8) = match header.address_family {
        AddressFamily::Inet => (Ipv4Addr::UNSPECIFIED.into(), 32),
        AddressFamily::Inet6 => (Ipv6Addr::UNSPECIFIED.into(), 128),
        _ => return Vec::new(),
    };
    // No such range exists, and nobody could compare with it.
    if header.destination_prefix_length > bits {
        return Vec::new();
    }
    let mut whole = Route {
        device: 0,
        destination: any,
        length: header.destination_prefix_length,
        gateway: None,
        source: None,
    };
    let mut hops = Vec::new();
    for attribute in attributes {
        match attribute {
            RouteAttribute::Destination(address) => whole.destination = ip(address).unwrap_or(any),
            RouteAttribute::PrefSource(address) => whole.source = ip(address),
            RouteAttribute::Oif(device) => whole.device = *device,
            RouteAttribute::MultiPath(several) => hops.extend(several),
            attribute => whole.gateway = gateway(attribute).or(whole.gateway),
        }
    }
    if hops.is_empty() {
        return if whole.device == 0 { Vec::new() } else { vec![whole] };
    }
    let of_hop = |hop: &netlink_packet_route::route::RouteNextHop| Route {
        device: hop.interface_index,
        gateway: hop.attributes.iter().find_map(gateway),
        ..whole.clone()
    };
    hops.into_iter().map(of_hop).collect()
}

/// A route's MTU.
pub(super) fn mtu(message: &RouteMessage) -> Option<u32> {
    let metrics = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Metrics(metrics) => Some(metrics),
        _ => None,
    });
    metrics?.iter().find_map(|metric| match metric {
        RouteMetric::Mtu(mtu) => Some(*mtu),
        _ => None,
    })
}

pub(super) fn gateway(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(address) => ip(address),
        RouteAttribute::Via(RouteVia::Inet(v4)) => Some((*v4).into()),
        RouteAttribute::Via(RouteVia::Inet6(v6)) => Some((*v6).into()),
        _ => None,
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_leads_to_what_its_range_holds() {
        let route = |destination: &str, length| Route {
            device: 2,
            destination: destination.parse().expect("an address"),
            length,
            gateway: None,
            source: None,
        };
        for (route, address, leads) in [
            (route("0.0.0.0", 0), "192.0.2.1", true),
            (route("0.0.0.0", 0), "2001:db8::1", false),
            (route("10.244.1.0", 24), "10.244.1.11", true),
            (route("10.244.1.0", 24), "10.244.2.11", false),
            (route("10.244.1.11", 32), "10.244.1.11", true),
            (route("fd00:10:244:2::", 64), "fd00:10:244:2::11", true),
            (route("fd00:10:244:2::", 64), "fd00:10:244:3::11", false),
        ] {
            assert_eq!(route.leads_to(address.parse().expect("an address")), leads, "{route:?} {address}");
        }
    }

    #[test]
    fn a_range_longer_than_an_address_is_no_route() {
        let route = |family, length| {
            let mut message = RouteMessage::default();
            message.header.kind = RouteType::Unicast;
            (message.header.address_family, message.header.destination_prefix_length) = (family, length);
            message.attributes.push(RouteAttribute::Oif(2));
            routes(&message).len()
        };
        let lengths = [(AddressFamily::Inet, 32), (AddressFamily::Inet6, 128), (AddressFamily::Inet, 33)];
        assert_eq!(lengths.map(|(family, length)| route(family, length)), [1, 1, 0]);
        assert_eq!(route(AddressFamily::Inet6, 129), 0);
    }

    #[test]
    fn a_name_ends_at_its_zero() {
        let named = |name: &str| {
            let mut message = LinkMessage::default();
            message.attributes.push(LinkAttribute::IfName(name.to_owned()));
            message
        };
        assert_eq!(link(named("eth0\0left over")).map(|link| link.name).as_deref(), Some("eth0"));
        assert_eq!(link(named("\0o")), None, "without a name it is no device");
    }

    #[test]
    fn the_loopback_device_is_there_with_its_address() {
        let network = Network::here().expect("devices");
        let loopback = network.links.iter().find(|link| link.loopback).expect("a loopback device");
        assert_eq!((loopback.name.as_str(), loopback.layer), ("lo", LinkLayer::Loopback));
        assert_eq!((loopback.index, loopback.kind.clone(), loopback.master), (1, None, None));
    }
}
