//! A host outside the cluster, the node on which the agent runs, and another node, with pods on both.
//!
//! ```text
//!   outside 192.0.2.100 ───┐
//!   node    192.0.2.10  ───┤ switch        pods 10.244.1.n
//!   other   192.0.2.11  ───┘               pods 10.244.2.n
//! ```
//! `outside` and `other` reach each other directly, so an answer that bypasses the node arrives untranslated and fails
//! the test. `outside` routes LoadBalancer IPs, external IPs and ClusterIPs to the node, and has no route to pods. It
//! is the nodes' default route, and forwards nothing. The [`Variant`] says how nodes reach each other's pods, and
//! whether a CNI has left rules.
//!
//! Packets are captured while a scenario runs, and kept if it fails ([`capture`](crate::capture)).

mod behind;
mod cni_rules;
mod lan;
mod long_lived;
mod published;
mod routed_pod;
mod second_uplink;
mod variant;
mod vxlan;
mod ways_in;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context, Result};

pub use self::long_lived::LongLived;
pub use self::published::slices;
pub use self::variant::{Routing, Rules, Variant};
pub use self::ways_in::{
    DNS_NODE_PORT, HTTP_NODE_PORT, WayIn, cluster_ips, load_balancer_ips, node_ports, ways_in, web,
};
use crate::{
    capture::Captures,
    lab::Lab,
    manifest::Node as NodeManifest,
    namespace::Namespace,
    place::Place,
    topology::{self, CLUSTER_IPS, NODE_V4, NODE_V6, Node, OTHER_V4, OTHER_V6, PodRange},
};

/// The address in IPv4 of the host outside.
pub const OUTSIDE_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 100);
/// The address in IPv6 of the host outside.
pub const OUTSIDE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x192, 0, 0, 0, 0, 0x100);
/// The range of LoadBalancer IPs, in each family; `outside` routes it to the node.
pub const LOAD_BALANCER_IPS: [&str; 2] = ["203.0.113.0/24", "2001:db8:203::/64"];
/// The range of external IPs, in each family; `outside` routes it to the node.
pub const EXTERNAL_IPS: [&str; 2] = ["198.51.100.0/24", "2001:db8:198::/64"];

/// The other node's name in manifests.
pub const OTHER_NODE_NAME: &str = "lab-other";

/// The lab; the fields are dropped in this order, users before what they use.
#[derive(Debug)]
pub struct TwoNodes {
    _captures: Captures,
    variant: Variant,
    outside: Place,
    there: Node,
    lab: Lab,
    switch: Namespace,
}

impl TwoNodes {
    /// Makes both nodes without pods, and a manifest of each.
    pub fn new(variant: Variant) -> Result<Self> {
        let mut wires = None;
        let lab = Lab::on(|name, inside, outside| {
            let (here, rest) = Wires::make(name, variant, &inside, &outside)?;
            let other = rest.there.place.clone();
            wires = Some(rest);
            Ok((here, other))
        })?;
        let Wires { switch, outside, there } = wires.context("the lab has no links")?;
        let other = NodeManifest::new(OTHER_NODE_NAME, &there.place.addresses());
        lab.manifests().write("nodes.yaml", &[&NodeManifest::lab(), &other])?;
        let mut devices = vec![
            ("outside", &outside, "uplink"),
            ("node", lab.node(), "uplink"),
            ("other", &there.place, "uplink"),
        ];
        if variant.routing == Routing::Vxlan {
            devices.push(("node-vxlan", lab.node(), vxlan::DEVICE));
        }
        let captures = Captures::start(lab.packet_directory(), &devices)?;
        Ok(Self { _captures: captures, variant, outside, there, lab, switch })
    }

    /// The variant.
    pub const fn variant(&self) -> Variant {
        self.variant
    }

    /// The part in common with the lab of one node: the node, the agent, the manifests.
    pub const fn lab(&self) -> &Lab {
        &self.lab
    }

    /// The host outside of the cluster.
    pub const fn outside(&self) -> &Place {
        &self.outside
    }

    /// The node on which the agent runs.
    pub const fn node(&self) -> &Place {
        self.lab.node()
    }

    /// The other node, on which no agent runs.
    pub const fn other_node(&self) -> &Place {
        &self.there.place
    }

    /// The namespace of the bridge `switch`, which joins the three.
    pub const fn switch(&self) -> &Namespace {
        &self.switch
    }

    /// Makes a pod on the node.
    pub fn pod_here(&self, name: &str) -> Result<Place> {
        self.lab.pod(name)
    }

    /// Makes a pod on the other node.
    pub fn pod_there(&self, name: &str) -> Result<Place> {
        self.there.pod(self.lab.name(), name, self.lab.outside().clone())
    }

    /// Makes this node's end of the VXLAN anew, after it was deleted.
    pub fn join_vxlan_here(&self) -> Result<()> {
        vxlan::make((self.node(), PodRange::HERE), (self.other_node(), PodRange::THERE))
    }

    /// The node's addresses with this port, one of each family.
    pub const fn at_node(&self, port: u16) -> [SocketAddr; 2] {
        [SocketAddr::new(IpAddr::V4(NODE_V4), port), SocketAddr::new(IpAddr::V6(NODE_V6), port)]
    }

    /// The uplinks that the agent should find: towards other nodes' pods and out of the cluster.
    pub fn uplinks(&self) -> Vec<&'static str> {
        match self.variant.routing {
            Routing::Direct => vec!["uplink"],
            Routing::Vxlan => vec!["uplink", vxlan::DEVICE],
        }
    }

    /// The node's addresses that the routes to the other node's pods prefer, one of each family.
    pub fn preferred_sources(&self) -> [IpAddr; 2] {
        match self.variant.routing {
            Routing::Direct => [NODE_V4.into(), NODE_V6.into()],
            Routing::Vxlan => [PodRange::HERE.first_v4().into(), PodRange::HERE.first_v6().into()],
        }
    }
}

/// Everything besides the node itself.
struct Wires {
    switch: Namespace,
    outside: Place,
    there: Node,
}

impl Wires {
    fn make(
        lab: &str,
        variant: Variant,
        inside: &crate::cgroup::Cgroup,
        beside: &crate::cgroup::Cgroup,
    ) -> Result<(Node, Self)> {
        let switch = Namespace::new(format!("{lab}-switch"))?;
        switch
            .ip_batch("link add switch type bridge forward_delay 0 mcast_snooping 0\nlink set switch up\n")?;
        let outside = topology::host(lab, "outside", OUTSIDE_V4, OUTSIDE_V6, beside.clone())?;
        let here = topology::host(lab, "node", NODE_V4, NODE_V6, inside.clone())?;
        let there = topology::host(lab, "other", OTHER_V4, OTHER_V6, beside.clone())?;
        for host in [&outside, &here, &there] {
            topology::plug(host, &switch)?;
        }
        let here = Node::new(here, PodRange::HERE, variant.pod_mtu())?;
        let there = Node::new(there, PodRange::THERE, variant.pod_mtu())?;
        match variant.routing {
            Routing::Direct => direct(&here.place, &there.place)?,
            Routing::Vxlan => vxlan::join(&here.place, &there.place)?,
        }
        if variant.rules == Rules::Flannel {
            cni_rules::load(&here.place, PodRange::HERE)?;
            cni_rules::load(&there.place, PodRange::THERE)?;
        }
        let to_node = [LOAD_BALANCER_IPS, EXTERNAL_IPS, CLUSTER_IPS]
            .map(|[v4, v6]| format!("route add {v4} via {NODE_V4}\nroute add {v6} via {NODE_V6}\n"));
        outside.namespace.ip_batch(&to_node.concat())?;
        for node in [&here.place, &there.place] {
            node.namespace.ip_batch(&format!(
                "route add default via {OUTSIDE_V4}\nroute add default via {OUTSIDE_V6}\n"
            ))?;
        }
        Ok((here, Self { switch, outside, there }))
    }
}

/// Adds routes via the nodes' addresses.
fn direct(here: &Place, there: &Place) -> Result<()> {
    for (at, range, via) in [(here, PodRange::THERE, there), (there, PodRange::HERE, here)] {
        let [v4, v6] = range.cidrs();
        at.namespace.ip_batch(&format!("route add {v4} via {}\nroute add {v6} via {}\n", via.v4, via.v6))?;
    }
    Ok(())
}
