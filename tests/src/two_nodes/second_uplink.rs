//! A second uplink of the node, like a cloud's secondary network interface.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::Result;

use super::TwoNodes;
use crate::{place::Place, topology};

/// The device on the node.
const SECOND_UPLINK: &str = "eth1";
/// The node's addresses at that device, one of each family.
const NODE: [&str; 2] = ["198.18.0.10/24", "2001:db8:198:18::10/64"];
/// The router's address in IPv4.
const ROUTER_V4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 100);
/// The router's address in IPv6.
const ROUTER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x198, 0x18, 0, 0, 0, 0x100);
/// The routing table with the default route by this uplink.
const TABLE: u32 = 2;

impl TwoNodes {
    /// Makes a router that the node reaches by a device of its own, `eth1`. It forwards nothing: packets to it are
    /// lost, like those that a cloud's source check drops.
    pub fn second_uplink(&self) -> Result<Place> {
        let beside = self.lab.outside().clone();
        let router = topology::host(self.lab.name(), "router", ROUTER_V4, ROUTER_V6, beside)?;
        self.node().namespace.ip_batch(&format!(
            "link add {SECOND_UPLINK} type veth peer name uplink netns {}
addr add {} dev {SECOND_UPLINK}
addr add {} dev {SECOND_UPLINK} nodad
link set {SECOND_UPLINK} up
",
            router.namespace.name(),
            NODE[0],
            NODE[1],
        ))?;
        router.namespace.ip_batch(&topology::addresses(&router))?;
        Ok(router)
    }

    /// Adds rules that route all packets from this pod to the second uplink, as the AWS CNI does for pods with an
    /// address of a secondary interface.
    pub fn lead_out_by(&self, router: &Place, pod: &Place) -> Result<()> {
        let [here_v4, here_v6] = topology::PodRange::HERE.cidrs();
        self.node().namespace.ip_batch(&format!(
            "route add default via {} dev {SECOND_UPLINK} table {TABLE}
route add default via {} dev {SECOND_UPLINK} table {TABLE}
route add {here_v4} dev pods table {TABLE}
route add {here_v6} dev pods table {TABLE}
rule add from {} lookup {TABLE} pref 1536
",
            router.v4, router.v6, pod.v4,
        ))?;
        let (pod, table) = (pod.v6.to_string(), TABLE.to_string());
        self.node().namespace.ip6(&["rule", "add", "from", &pod, "lookup", &table, "pref", "1536"])
    }
}
