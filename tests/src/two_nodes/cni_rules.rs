//! Flannel's netfilter rules on a node: they forward for pods only, and masquerade packets from outside the cluster to
//! another node's pods.
//!
//! These are the rules of flannel's chains FLANNEL-FWD and FLANNEL-POSTRTG, in its order, in the syntax of `nft`. They
//! activate connection tracking.

use anyhow::Result;

use crate::{
    netfilter,
    place::Place,
    topology::{PODS, PodRange},
};

/// Loads the rules on a node with these pods.
pub(super) fn load(node: &Place, own: PodRange) -> Result<()> {
    let [own_v4, own_v6] = own.cidrs();
    let rules = table("ip", PODS[0], &own_v4, "224.0.0.0/4") + &table("ip6", PODS[1], &own_v6, "ff00::/8");
    netfilter::nft(node, &rules)
}

fn table(family: &str, pods: &str, own: &str, multicast: &str) -> String {
    format!(
        "table {family} flannel {{
    chain forward {{
        type filter hook forward priority filter; policy drop;
        {family} saddr {pods} accept
        {family} daddr {pods} accept
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        {family} saddr {own} {family} daddr {pods} return
        {family} saddr {pods} {family} daddr {own} return
        {family} saddr != {pods} {family} daddr {own} return
        {family} saddr {pods} {family} daddr != {multicast} masquerade fully-random
        {family} saddr != {pods} {family} daddr {pods} masquerade fully-random
    }}
}}
"
    )
}
