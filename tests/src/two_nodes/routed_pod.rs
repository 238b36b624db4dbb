//! A pod that the node reaches by a route of its own, as with Calico: no bridge, and a gateway that is nobody's address.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result};

use super::TwoNodes;
use crate::{
    place::Place,
    topology::{self, NODE_V4, NODE_V6},
};

const POD: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(10, 244, 3, 5), Ipv6Addr::new(0xfd00, 0x10, 0x244, 3, 0, 0, 0, 5));

impl TwoNodes {
    /// Makes that pod on the node. The other node has a route to it. Its sockets are served by no program.
    pub fn routed_pod(&self, name: &str) -> Result<Place> {
        let pod = topology::host(self.lab.name(), name, POD.0, POD.1, self.lab.outside().clone())?;
        self.node().namespace.ip_batch(&format!(
            "link add cali1 mtu 1450 type veth peer name eth0 mtu 1450 netns {}
addr add fe80::1/64 dev cali1 nodad
link set cali1 up
route add {}/32 dev cali1
route add {}/128 dev cali1
",
            pod.namespace.name(),
            pod.v4,
            pod.v6,
        ))?;
        let file = "/proc/sys/net/ipv4/conf/cali1/proxy_arp";
        self.node().run(|| std::fs::write(file, "1")).context(file)?;
        pod.namespace.ip_batch(&format!(
            "addr add {}/32 dev eth0
addr add {}/128 dev eth0 nodad
link set eth0 up
route add 169.254.1.1 dev eth0
route add default via 169.254.1.1
route add default via fe80::1 dev eth0
",
            pod.v4, pod.v6,
        ))?;
        let routes = format!("route add {} via {NODE_V4}\nroute add {} via {NODE_V6}\n", pod.v4, pod.v6);
        self.other_node().namespace.ip_batch(&routes)?;
        Ok(pod)
    }
}
