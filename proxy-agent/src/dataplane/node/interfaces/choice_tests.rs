use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::dataplane::node::netlink::Assigned;

/// A small language for machines, one line a device:
/// `name kind [down] [in master] [addr A]… [to PREFIX [via G]]…`, where the kind is `card`, `lo` or rtnetlink's.
fn machine(lines: &[&str]) -> Network {
    let mut network = Network::default();
    for (line, index) in lines.iter().zip(1..) {
        let mut words = line.split_whitespace();
        let (name, kind) = (words.next().expect("a name"), words.next().expect("a kind"));
        let (kind, layer) = match kind {
            "card" => (None, LinkLayer::Ether),
            "lo" => (None, LinkLayer::Loopback),
            "infiniband" => (None, LinkLayer::Infiniband),
            "veth" => (Some(Kind::Veth), LinkLayer::Ether),
            "bridge" => (Some(Kind::Bridge), LinkLayer::Ether),
            "bond" => (Some(Kind::Bond), LinkLayer::Ether),
            "vlan" => (Some(Kind::Vlan), LinkLayer::Ether),
            "vrf" => (Some(Kind::Vrf), LinkLayer::Ether),
            "vxlan" => (Some(Kind::Vxlan), LinkLayer::Ether),
            "dummy" => (Some(Kind::Dummy), LinkLayer::Ether),
            "tap" => (Some(Kind::Tun), LinkLayer::Ether),
            "tun" => (Some(Kind::Tun), LinkLayer::None),
            "wireguard" => (Some(Kind::Wireguard), LinkLayer::None),
            "ipip" => (Some(Kind::IpIp), LinkLayer::Tunnel),
            "gre" => (Some(Kind::GreTun), LinkLayer::Ipgre),
            "netkit" => (Some(Kind::Other("netkit".to_owned())), LinkLayer::Ether),
            "openvswitch" => (Some(Kind::Other("openvswitch".to_owned())), LinkLayer::Ether),
            other => panic!("{other}"),
        };
        let mut link = Link {
            index,
            name: name.to_owned(),
            up: true,
            loopback: layer == LinkLayer::Loopback,
            layer,
            kind,
            master: None,
        };
        let rest: Vec<&str> = words.collect();
        let mut place = 0;
        while let Some(word) = rest.get(place) {
            let next = rest.get(place + 1).copied().unwrap_or_default();
            match *word {
                "down" => {
                    link.up = false;
                    place += 1;
                    continue;
                }
                "in" => {
                    let master = lines.iter().position(|line| line.split(' ').next() == Some(next));
                    link.master = Some(u32::try_from(master.expect("a master")).expect("few") + 1);
                }
                "addr" => network.addresses.push(Assigned { device: index, address: ip(next), usable: true }),
                "to" => {
                    let (destination, length) = next.split_once('/').expect("a prefix");
                    let gateway = (rest.get(place + 2) == Some(&"via")).then(|| ip(rest[place + 3]));
                    network.routes.push(Route {
                        device: index,
                        destination: ip(destination),
                        length: length.parse().expect("a length"),
                        gateway,
                        source: None,
                    });
                    place += if gateway.is_some() { 2 } else { 0 };
                }
                other => panic!("{other}"),
            }
            place += 2;
        }
        network.links.push(link);
    }
    network
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// The chosen devices and why, for a Node object with this address.
fn chosen(lines: &[&str]) -> Vec<(String, Why)> {
    let node = BTreeSet::from([ip("192.0.2.10")]);
    let wanted = Wanted::of_uplinks(Devices::Auto);
    let chosen = choose(&machine(lines), &wanted, &node, &BTreeMap::new());
    chosen.into_iter().map(|chosen| (chosen.name, chosen.why)).collect()
}

fn named(lines: &[&str], names: &[&str], hooked: &[u32]) -> Vec<String> {
    let patterns = names.iter().map(|name| glob::Pattern::new(name).expect("a pattern")).collect();
    let hooked = hooked.iter().map(|index| (*index, false)).collect();
    let wanted = Wanted::of_uplinks(Devices::Named(patterns));
    let chosen = choose(&machine(lines), &wanted, &BTreeSet::new(), &hooked);
    chosen.into_iter().map(|chosen| chosen.name).collect()
}

/// What it is, its devices, and which of them are chosen.
type Case<'a> = (&'a str, &'a [&'a str], &'a [(&'a str, Why)]);

#[test]
fn uplinks_are_chosen_and_devices_of_pods_are_not() {
    const LO: &str = "lo lo addr 127.0.0.1";
    const ETH0: &str = "eth0 card addr 192.0.2.10 to 192.0.2.0/24 to 0.0.0.0/0 via 192.0.2.1";
    use Why::{Card, DefaultRoute, Gateway, NodeAddress, Tunnel};
    let cases: [Case<'_>; 17] = [
        (
            "flannel",
            &[
                LO,
                ETH0,
                "flannel.1 vxlan addr 10.244.1.0 to 10.244.2.0/24 via 10.244.2.0",
                "cni0 bridge addr 10.244.1.1 to 10.244.1.0/24",
                "veth1 veth in cni0 to fe80::/64",
            ],
            &[("eth0", DefaultRoute), ("flannel.1", Gateway)],
        ),
        (
            "calico with IPIP, and its pods' devices",
            &[
                ETH0,
                "tunl0 ipip addr 10.244.1.0 to 10.244.2.0/26 via 192.0.2.11",
                "cali1 veth to 10.244.1.5/32 to fe80::/64",
            ],
            &[("eth0", DefaultRoute), ("tunl0", Gateway)],
        ),
        (
            "a tunnel without routes",
            &[ETH0, "tunl0 ipip", "vx vxlan to fe80::/64"],
            &[("eth0", DefaultRoute)],
        ),
        (
            "WireGuard between the nodes",
            &[ETH0, "wg0 wireguard to 10.244.2.0/24 to 10.244.3.0/24"],
            &[("eth0", DefaultRoute), ("wg0", Tunnel)],
        ),
        ("GRE", &[ETH0, "gre1 gre to 10.244.2.0/24"], &[("eth0", DefaultRoute), ("gre1", Tunnel)]),
        (
            "a VPN, and a virtual machine's device",
            &[ETH0, "tun0 tun addr 10.8.0.1 to 10.8.0.0/24", "tap0 tap addr 10.9.0.1 to 10.9.0.0/24"],
            &[("eth0", DefaultRoute), ("tun0", Tunnel)],
        ),
        (
            "directly routed pods",
            &["eth0 card addr 192.0.2.10 to 10.244.2.0/24 via 192.0.2.11"],
            &[("eth0", Gateway)],
        ),
        (
            "kind: a veth is the uplink",
            &["eth0 veth addr 192.0.2.10 to 0.0.0.0/0 via 192.0.2.1"],
            &[("eth0", DefaultRoute)],
        ),
        (
            "no route out, but the Node's address",
            &["uplink veth addr 192.0.2.10 to 192.0.2.0/24", "pods bridge addr 10.244.1.1 to 10.244.1.0/24"],
            &[("uplink", NodeAddress)],
        ),
        (
            "a bond: not its ports, whatever routes they had",
            &[
                "eth0 card in bond0 to 0.0.0.0/0",
                "eth1 card in bond0",
                "bond0 bond addr 192.0.2.10 to 0.0.0.0/0 via 192.0.2.1",
            ],
            &[("bond0", DefaultRoute)],
        ),
        (
            "a bridge as uplink: not its ports",
            &[
                "eth0 card in br0",
                "br0 bridge addr 192.0.2.10 to 0.0.0.0/0 via 192.0.2.1",
                "veth1 veth in br0",
            ],
            &[("br0", DefaultRoute)],
        ),
        (
            "Open vSwitch: the internal port, not the card",
            &[
                "ovs-system openvswitch down",
                "eth0 card in ovs-system",
                "br-ex openvswitch addr 192.0.2.10 to 0.0.0.0/0 via 192.0.2.1",
            ],
            &[("br-ex", DefaultRoute)],
        ),
        (
            "a VLAN stack: the level that has the routes",
            &["eth0 card", "eth0.100 vlan", "eth0.100.5 vlan addr 192.0.2.10 to 0.0.0.0/0 via 192.0.2.1"],
            &[("eth0.100.5", DefaultRoute)],
        ),
        (
            "a VRF chooses routes, its ports carry them",
            &["red vrf addr 192.0.2.10", "eth0 card in red addr 192.0.2.10 to 0.0.0.0/0 via 192.0.2.1"],
            &[("eth0", DefaultRoute)],
        ),
        (
            "several cards: every one that has an address, or a way of a multipath route",
            &[
                "eth0 card addr 198.51.100.1 to 0.0.0.0/0 via 198.51.100.254",
                "eth1 card to 0.0.0.0/0 via 203.0.113.254",
                "eth2 card addr 10.0.0.1 to 10.0.0.0/24",
                "eth3 card",
                "dummy0 dummy addr 10.96.0.10",
            ],
            &[("eth0", DefaultRoute), ("eth1", DefaultRoute), ("eth2", Card)],
        ),
        (
            "IPv6 only",
            &["eth0 card addr 2001:db8::10 to fe80::/64 to ::/0 via fe80::1"],
            &[("eth0", DefaultRoute)],
        ),
        ("what is down", &["eth0 card down addr 192.0.2.10 to 0.0.0.0/0 via 192.0.2.1", LO], &[]),
    ];
    for (what, lines, expected) in cases {
        let expected: Vec<(String, Why)> =
            expected.iter().map(|(name, why)| ((*name).to_owned(), *why)).collect();
        assert_eq!(chosen(lines), expected, "{what}");
    }
}

/// Among them a container's of Docker, whose bridge is as a CNI's.
#[test]
fn the_nodes_ends_of_pods_wires_are_chosen_and_no_bridge() {
    let lines = [
        "eth0 card addr 192.0.2.10 to 0.0.0.0/0 via 192.0.2.1",
        "cni0 bridge addr 10.244.1.1 to 10.244.1.0/24",
        "veth1 veth in cni0 to fe80::/64",
        "tap1 tap in cni0",
        "veth2 veth down in cni0",
        "cali1 veth to 10.244.1.5/32",
        "nk1 netkit to 10.244.1.6/32",
        "loose veth to fe80::/64",
        "tun0 tun addr 10.8.0.1 to 10.8.0.0/24",
        "br0 bridge addr 198.51.100.1 to 198.51.100.0/24",
        "eth1 card in br0",
        "vnet1 veth in br0",
        "cni1 bridge addr 10.244.9.1 to 10.244.9.0/24 to 10.8.1.0/24 via 10.244.9.2",
        "veth3 veth in cni1",
        "vxlan0 vxlan in cni0",
    ];
    let pods = |wanted: &Wanted, hooked: &BTreeMap<u32, bool>| -> Vec<(String, Why, u32)> {
        let chosen = choose(&machine(&lines), wanted, &BTreeSet::new(), hooked);
        let of_pods = chosen.into_iter().filter(Chosen::of_pod);
        of_pods.map(|chosen| (chosen.name, chosen.why, chosen.flags)).collect()
    };
    let both = Interface::INSIDE | Interface::KEEPS_SOURCE;
    let all =
        |flags| ["veth1", "tap1", "cali1", "nk1", "veth3"].map(|name| (name.to_owned(), Why::Pod, flags));
    let wanted = Wanted { pods: Devices::Auto, ..Wanted::of_uplinks(Devices::Auto) };
    assert_eq!(pods(&wanted, &BTreeMap::new()), all(both));
    let masquerading = Wanted { masquerade_all: true, ..wanted.clone() };
    assert_eq!(pods(&masquerading, &BTreeMap::new()), all(Interface::INSIDE));
    let named =
        Wanted { pods: Devices::Named(vec![glob::Pattern::new("cali*").expect("one")]), ..wanted.clone() };
    assert_eq!(pods(&named, &BTreeMap::new()), all(both)[2..3]);
    // One that went down is kept.
    let down = pods(&wanted, &BTreeMap::from([(5, true)]));
    assert!(down.contains(&("veth2".to_owned(), Why::Before, both)), "{down:?}");
    assert!(pods(&Wanted::of_uplinks(Devices::Auto), &BTreeMap::new()).is_empty());
}

#[test]
fn named_devices_are_chosen_and_no_others() {
    let lines = [
        "lo lo",
        "eth0 card to 0.0.0.0/0",
        "wg0 wireguard",
        "wg1 wireguard down",
        "eth1 card in br0",
        "br0 bridge",
    ];
    assert_eq!(named(&lines, &["wg*"], &[]), ["wg0"]);
    assert_eq!(named(&lines, &["wg*"], &[4]), ["wg0", "wg1"], "one that went down is kept");
    assert_eq!(named(&lines, &["eth1", "lo"], &[2]), ["lo", "eth1"]);
    assert_eq!(named(&lines, &[], &[2]), [""; 0]);
}

#[test]
fn a_device_that_was_chosen_stays_until_it_is_a_port() {
    let hooked = BTreeMap::from([(1, false), (2, false), (3, false)]);
    let network = machine(&["eth0 card", "eth1 card down", "eth2 card in br0", "br0 bridge"]);
    let wanted = Wanted::of_uplinks(Devices::Auto);
    let chosen = choose(&network, &wanted, &BTreeSet::new(), &hooked);
    let chosen: Vec<(&str, Why)> = chosen.iter().map(|chosen| (chosen.name.as_str(), chosen.why)).collect();
    assert_eq!(chosen, [("eth0", Why::Before), ("eth1", Why::Before)]);
}

#[test]
fn the_link_layer_says_which_programs_a_device_gets() {
    let headers = |line: &str| {
        let (wanted, all) = (Wanted::of_uplinks(Devices::Auto), BTreeMap::from([(1, false)]));
        choose(&machine(&[line]), &wanted, &BTreeSet::new(), &all)[0].header
    };
    assert_eq!(headers("eth0 card"), Header::Ethernet);
    assert_eq!(headers("vx vxlan"), Header::Ethernet);
    for line in ["wg0 wireguard", "tunl0 ipip", "gre1 gre", "tun0 tun"] {
        assert_eq!(headers(line), Header::None, "{line}");
    }
    assert_eq!(headers("ib0 infiniband"), Header::Unknown(LinkLayer::Infiniband));
}
