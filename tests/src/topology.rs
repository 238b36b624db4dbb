//! The lab's wires and addresses.
//!
//! ```text
//!   pod 10.244.1.n ──┐
//!   pod 10.244.1.n ──┤ pods (bridge, 10.244.1.1)
//!                    node ── uplink 192.0.2.10 ────── 192.0.2.11 other node
//! ```
//! Pods and nodes have an address in each family. All ranges are for private use or documentation, and no namespace
//! has a route out of the lab. Nobody routes Service addresses: one that is not translated is unreachable, at once.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
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
/// The bridge's address in IPv4, which is the pods' gateway and also the node's own.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 1);
/// The bridge's address in IPv6.
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0x244, 1, 0, 0, 0, 1);

/// Where tests and the demo take ClusterIPs from, in each family.
pub const CLUSTER_IPS: [&str; 2] = ["10.96.0.0/12", "fd00:10:96::/48"];

/// The address in IPv4 of the pod with this number.
pub const fn pod_v4(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 244, 1, number)
}

/// The address in IPv6 of the pod with this number; it reads the same: pod 17 is `fd00:10:244:1::17`.
pub const fn pod_v6(number: u8) -> Ipv6Addr {
    let digits = (number / 100) as u16 * 256 + (number / 10 % 10) as u16 * 16 + (number % 10) as u16;
    Ipv6Addr::new(0xfd00, 0x10, 0x244, 1, 0, 0, 0, digits)
}

/// Makes the node and the other node, with the wire between them.
pub(crate) fn nodes(name: &str, inside: Cgroup, outside: Cgroup) -> Result<(Place, Place)> {
    let node = Namespace::new(format!("{name}-node"))?;
    let other = Namespace::new(format!("{name}-other"))?;
    node.ip_batch(&format!(
        "link add pods type bridge forward_delay 0 mcast_snooping 0
addr add {GATEWAY_V4}/24 dev pods
addr add {GATEWAY_V6}/64 dev pods nodad
link set pods up
link add uplink type veth peer name uplink netns {}
addr add {NODE_V4}/24 dev uplink
addr add {NODE_V6}/64 dev uplink nodad
link set uplink up
{}",
        other.name(),
        unreachable()
    ))?;
    other.ip_batch(&format!(
        "addr add {OTHER_V4}/24 dev uplink
addr add {OTHER_V6}/64 dev uplink nodad
link set uplink up
route add 10.244.1.0/24 via {NODE_V4}
route add fd00:10:244:1::/64 via {NODE_V6}
"
    ))?;
    let place = |name: &str, namespace, cgroup, v4, v6| Place {
        name: name.to_owned(),
        namespace: Arc::new(namespace),
        cgroup,
        v4,
        v6,
    };
    let node = place("node", node, inside, NODE_V4, NODE_V6);
    let other = place("other", other, outside, OTHER_V4, OTHER_V6);
    node.run(|| -> Result<()> {
        for switch in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            let file = format!("/proc/sys/net/{switch}");
            std::fs::write(&file, "1").context(file)?;
        }
        Ok(())
    })?;
    Ok((node, other))
}

/// Makes a pod and plugs it into the node's bridge.
pub(crate) fn pod(lab: &str, node: &Place, name: &str, number: u8, cgroup: Cgroup) -> Result<Place> {
    let namespace = Namespace::new(format!("{lab}-{name}"))?;
    let (v4, v6) = (pod_v4(number), pod_v6(number));
    node.namespace.ip_batch(&format!(
        "link add pod{number} type veth peer name eth0 netns {}
link set pod{number} master pods up
",
        namespace.name()
    ))?;
    namespace.ip_batch(&format!(
        "addr add {v4}/24 dev eth0
addr add {v6}/64 dev eth0 nodad
link set eth0 up
route add default via {GATEWAY_V4}
route add default via {GATEWAY_V6}
{}",
        unreachable()
    ))?;
    Ok(Place { name: name.to_owned(), namespace: Arc::new(namespace), cgroup, v4, v6 })
}

/// Without these routes a TCP client waits for an answer to its SYN.
fn unreachable() -> String {
    CLUSTER_IPS.map(|range| format!("route add unreachable {range}\n")).concat()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_pods_addresses_read_alike() {
        assert_eq!(super::pod_v4(17).to_string(), "10.244.1.17");
        assert_eq!(super::pod_v6(17).to_string(), "fd00:10:244:1::17");
        assert_eq!(super::pod_v6(254).to_string(), "fd00:10:244:1::254");
    }
}
