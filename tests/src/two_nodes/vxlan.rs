//! The VXLAN between the nodes, as flannel makes it: with static entries instead of learning.

use anyhow::Result;

use crate::{
    identity::Identity,
    namespace::Namespace,
    place::Place,
    topology::{PodRange, pod_v4},
};

/// The device on each node.
pub(super) const DEVICE: &str = "flannel.1";
/// The size of the outer headers in bytes: Ethernet, IPv4, UDP and VXLAN.
pub(super) const OVERHEAD: u32 = 50;

/// One end: a node and its pods.
type End<'a> = (&'a Place, PodRange);

/// Joins the nodes. Each device has the first address of its node's pods, which routes to it prefer as the source.
pub(super) fn join(here: &Place, there: &Place) -> Result<()> {
    let (here, there) = ((here, PodRange::HERE), (there, PodRange::THERE));
    make(here, there)?;
    make(there, here)
}

/// Makes the device of one end.
pub(super) fn make((node, range): End<'_>, (peer, peers): End<'_>) -> Result<()> {
    let [v4, v6] = peers.cidrs();
    let (first_v4, first_v6) = (peers.first_v4(), peers.first_v6());
    let peer_mac = mac(peers);
    node.namespace.ip_batch(&format!(
        "link add {DEVICE} address {} type vxlan id 1 local {} dev uplink dstport 8472 nolearning
addr add {}/32 dev {DEVICE}
addr add {}/128 dev {DEVICE} nodad
link set {DEVICE} up
neigh add {first_v4} lladdr {peer_mac} dev {DEVICE} nud permanent
neigh add {first_v6} lladdr {peer_mac} dev {DEVICE} nud permanent
route add {v4} via {first_v4} dev {DEVICE} onlink
route add {v6} via {first_v6} dev {DEVICE} onlink
",
        mac(range),
        node.v4,
        range.first_v4(),
        range.first_v6(),
    ))?;
    node.namespace.bridge(&["fdb", "add", &peer_mac, "dev", DEVICE, "dst", &peer.v4.to_string()])
}

fn mac(range: PodRange) -> String {
    format!("02:00:5e:00:00:0{}", range.gateway_v4().octets()[2])
}

/// Whether this kernel has VXLAN.
pub(super) fn is_there() -> bool {
    Namespace::new(format!("{}-vxlan", Identity::new())).is_ok_and(|probe| {
        let link = format!("link add {DEVICE} type vxlan id 1 local {} dstport 8472\n", pod_v4(1));
        probe.ip_batch(&link).is_ok()
    })
}
