//! The lab's links and addresses.
//!
//! ```text
//!   pod 10.244.1.n ──┐
//!   pod 10.244.1.n ──┤ pods (bridge, 10.244.1.1)
//!                    node ── uplink 192.0.2.10 ────── 192.0.2.11 other node
//! ```
//! Pods and nodes have an address in each family. All ranges are for private use or documentation, and no namespace has
//! a route out of the lab. No host routes Service addresses: an untranslated one is unreachable at once.
//!
//! The parts are the same in every lab: a [`host`] is a namespace that gets addresses, a [`Node`] is a host with pods,
//! and a veth pair joins two hosts ([`wire`]) or a host and a switch ([`plug`]).

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use anyhow::{Context, Result};

use crate::{cgroup::Cgroup, namespace::Namespace, place::Place};

/// The node's address in IPv4.
pub const NODE_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
/// The node's address in IPv6.
pub const NODE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x192, 0, 0, 0, 0, 0x10);
/// The other node's address in IPv4.
pub const OTHER_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 11);
/// The other node's address in IPv6.
pub const OTHER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x192, 0, 0, 0, 0, 0x11);
/// The bridge's address in IPv4, which is the pods' gateway and an address of the node.
pub const GATEWAY_V4: Ipv4Addr = PodRange::HERE.gateway_v4();
/// The bridge's address in IPv6.
pub const GATEWAY_V6: Ipv6Addr = PodRange::HERE.gateway_v6();

/// The range of ClusterIPs of tests and the demo, in each family.
pub const CLUSTER_IPS: [&str; 2] = ["10.96.0.0/12", "fd00:10:96::/48"];
/// The addresses of all pods of the cluster, in each family.
pub const PODS: [&str; 2] = ["10.244.0.0/16", "fd00:10:244::/48"];

/// The MTU of Ethernet.
pub(crate) const ETHERNET_MTU: u32 = 1500;

/// Number of a node's first pod, as in its address `10.244.1.10`.
const FIRST_POD: u8 = 10;

/// The addresses of one node's pods: `10.244.<node>.0/24` and `fd00:10:244:<node>::/64`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PodRange {
    node: u8,
}

impl PodRange {
    /// The pods of the node that the agent runs on.
    pub const HERE: Self = Self { node: 1 };
    /// The pods of the other node.
    pub const THERE: Self = Self { node: 2 };

    /// The range's first address in IPv4, which no pod has.
    pub const fn first_v4(self) -> Ipv4Addr {
        self.v4(0)
    }

    /// The range's first address in IPv6, which no pod has.
    pub const fn first_v6(self) -> Ipv6Addr {
        self.v6(0)
    }

    /// The gateway's address in IPv4.
    pub const fn gateway_v4(self) -> Ipv4Addr {
        self.v4(1)
    }

    /// The gateway's address in IPv6.
    pub const fn gateway_v6(self) -> Ipv6Addr {
        self.v6(1)
    }

    /// The address in IPv4 of the pod with this number.
    pub const fn v4(self, number: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 244, self.node, number)
    }

    /// The address in IPv6 of the pod with this number; it reads the same: pod 17 is `fd00:10:244:1::17`.
    pub const fn v6(self, number: u8) -> Ipv6Addr {
        let digits = (number / 100) as u16 * 256 + (number / 10 % 10) as u16 * 16 + (number % 10) as u16;
        Ipv6Addr::new(0xfd00, 0x10, 0x244, self.node as u16, 0, 0, 0, digits)
    }

    /// Whether the IPv4 address is within the range.
    pub const fn has(self, address: Ipv4Addr) -> bool {
        address.octets()[2] == self.node
    }

    /// Both ranges in CIDR notation.
    pub fn cidrs(self) -> [String; 2] {
        [format!("{}/24", self.first_v4()), format!("{}/64", self.first_v6())]
    }
}

/// The address in IPv4 of this node's pod with this number.
pub const fn pod_v4(number: u8) -> Ipv4Addr {
    PodRange::HERE.v4(number)
}

/// The address in IPv6 of this node's pod with this number.
pub const fn pod_v6(number: u8) -> Ipv6Addr {
    PodRange::HERE.v6(number)
}

/// A host with pods on its bridge.
#[derive(Debug)]
pub(crate) struct Node {
    /// The host.
    pub(crate) place: Place,
    range: PodRange,
    /// The MTU of the path to other nodes' pods.
    pod_mtu: u32,
    next_pod: AtomicU8,
}

impl Node {
    /// Turns a host into a node.
    pub(crate) fn new(place: Place, range: PodRange, pod_mtu: u32) -> Result<Self> {
        // An address of its own: else it has the lowest of its ports', and pods lose the node when a port goes.
        place.namespace.ip_batch(&format!(
            "link add pods address 02:00:5e:01:00:01 type bridge forward_delay 0 mcast_snooping 0
addr add {}/24 dev pods
addr add {}/64 dev pods nodad
link set pods mtu {pod_mtu} up
{}",
            range.gateway_v4(),
            range.gateway_v6(),
            unreachable()
        ))?;
        for switch in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            let file = format!("/proc/sys/net/{switch}");
            place.namespace.run(|| std::fs::write(&file, "1"))?.context(file.clone())?;
        }
        Ok(Self { place, range, pod_mtu, next_pod: AtomicU8::new(FIRST_POD) })
    }

    /// Makes the node's next pod: `.10`, then `.11`, and so on.
    pub(crate) fn pod(&self, lab: &str, name: &str, cgroup: Cgroup) -> Result<Place> {
        let number = self.next_pod.fetch_add(1, Ordering::Relaxed);
        let Self { place: node, range, pod_mtu: mtu, next_pod: _ } = self;
        let pod = host(lab, name, range.v4(number), range.v6(number), cgroup)?;
        node.namespace.ip_batch(&format!(
            "link add pod{number} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {}
link set pod{number} master pods up
",
            pod.namespace.name()
        ))?;
        pod.namespace.ip_batch(&format!(
            "addr add {}/24 dev eth0
addr add {}/64 dev eth0 nodad
link set eth0 up
route add default via {}
route add default via {}
{}",
            pod.v4,
            pod.v6,
            range.gateway_v4(),
            range.gateway_v6(),
            unreachable()
        ))?;
        Ok(pod)
    }
}

/// Makes the node and the other node, with the link between them.
pub(crate) fn nodes(lab: &str, inside: Cgroup, outside: Cgroup) -> Result<(Node, Place)> {
    let node = host(lab, "node", NODE_V4, NODE_V6, inside)?;
    let other = host(lab, "other", OTHER_V4, OTHER_V6, outside)?;
    wire(&node, &other)?;
    let [v4, v6] = PodRange::HERE.cidrs();
    other.namespace.ip_batch(&format!("route add {v4} via {NODE_V4}\nroute add {v6} via {NODE_V6}\n"))?;
    Ok((Node::new(node, PodRange::HERE, ETHERNET_MTU)?, other))
}

/// Makes a host: a namespace without links.
pub(crate) fn host(lab: &str, name: &str, v4: Ipv4Addr, v6: Ipv6Addr, cgroup: Cgroup) -> Result<Place> {
    let namespace = Arc::new(Namespace::new(format!("{lab}-{name}"))?);
    Ok(Place { name: name.to_owned(), namespace, cgroup, v4, v6 })
}

/// Joins two hosts by their devices `uplink`, which get the hosts' addresses.
pub(crate) fn wire(one: &Place, other: &Place) -> Result<()> {
    one.namespace.ip_batch(&format!(
        "link add uplink type veth peer name uplink netns {}\n",
        other.namespace.name()
    ))?;
    [one, other].into_iter().try_for_each(|host| host.namespace.ip_batch(&addresses(host)))
}

/// Joins a host to the bridge `switch` of a namespace by its device `uplink`, which gets the host's addresses.
pub(crate) fn plug(host: &Place, switch: &Namespace) -> Result<()> {
    switch.ip_batch(&format!(
        "link add {port} type veth peer name uplink netns {}\nlink set {port} master switch up\n",
        host.namespace.name(),
        port = host.name,
    ))?;
    host.namespace.ip_batch(&addresses(host))
}

/// The `ip` lines that give a host's device `uplink` its addresses.
pub(crate) fn addresses(host: &Place) -> String {
    format!(
        "addr add {}/24 dev uplink\naddr add {}/64 dev uplink nodad\nlink set uplink up\n",
        host.v4, host.v6
    )
}

/// Routes that reject untranslated ClusterIPs; without them a TCP client would wait for an answer to its SYN.
fn unreachable() -> String {
    CLUSTER_IPS.map(|range| format!("route add unreachable {range}\n")).concat()
}

#[cfg(test)]
mod tests {
    use super::PodRange;

    #[test]
    fn a_pods_addresses_read_alike() {
        assert_eq!(super::pod_v4(17).to_string(), "10.244.1.17");
        assert_eq!(super::pod_v6(17).to_string(), "fd00:10:244:1::17");
        assert_eq!(PodRange::THERE.v6(254).to_string(), "fd00:10:244:2::254");
    }

    #[test]
    fn ranges_are_written_as_routes_are() {
        assert_eq!(PodRange::THERE.cidrs(), ["10.244.2.0/24", "fd00:10:244:2::/64"]);
    }
}
