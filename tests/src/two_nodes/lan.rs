//! A node whose uplink is a port of a bridge, with pods on that bridge, as with macvlan, ipvlan, and bridge CNIs on the
//! node's own network: pods and nodes are neighbours, and a pod's answers can bypass its node.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::Result;

use super::{OUTSIDE_V4, OUTSIDE_V6, TwoNodes};
use crate::{
    place::Place,
    topology::{self, NODE_V4, NODE_V6, OTHER_V4, OTHER_V6, PodRange},
};

/// The bridge.
const LAN: &str = "lan";
/// The pod's address in IPv4.
const POD_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 31);
/// The pod's address in IPv6.
const POD_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x192, 0, 0, 0, 0, 0x31);

impl TwoNodes {
    /// Makes the node's uplink a port of a bridge that gets its addresses and routes, and a pod on that bridge. Only
    /// for direct routing: a VXLAN uses the uplink itself.
    pub fn pod_on_the_lan(&self, name: &str) -> Result<Place> {
        let node = &self.node().namespace;
        let address = node.hardware_address("uplink")?.map(|byte| format!("{byte:02x}")).join(":");
        let [there_v4, there_v6] = PodRange::THERE.cidrs();
        node.ip_batch(&format!(
            "link add {LAN} address {address} type bridge forward_delay 0 mcast_snooping 0
link set {LAN} up
route del default via {OUTSIDE_V6}
route del {there_v6} via {OTHER_V6}
addr flush dev uplink
link set uplink master {LAN}
addr add {NODE_V4}/24 dev {LAN}
addr add {NODE_V6}/64 dev {LAN} nodad
route add {there_v4} via {OTHER_V4}
route add {there_v6} via {OTHER_V6}
route add default via {OUTSIDE_V4}
route add default via {OUTSIDE_V6}
"
        ))?;
        // A router with one link would send its neighbours ICMP redirects to each other.
        node.run(|| {
            ["all", LAN].iter().try_for_each(|device| {
                std::fs::write(format!("/proc/sys/net/ipv4/conf/{device}/send_redirects"), "0")
            })
        })??;
        let pod = topology::host(self.lab.name(), name, POD_V4, POD_V6, self.lab.root().child(name)?)?;
        node.ip_batch(&format!(
            "link add {name} type veth peer name uplink netns {}\nlink set {name} master {LAN} up\n",
            pod.namespace.name()
        ))?;
        pod.namespace.ip_batch(&topology::addresses(&pod))?;
        pod.namespace
            .ip_batch(&format!("route add default via {OUTSIDE_V4}\nroute add default via {OUTSIDE_V6}\n"))?;
        Ok(pod)
    }
}
