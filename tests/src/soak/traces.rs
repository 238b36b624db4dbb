//! What the lab's kernels have seen and kept.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{
    cluster::{DNS_PORT, HTTP_PORT},
    netfilter::{self, Tracked},
    place::Place,
    topology::{NODE_V4, NODE_V6, PODS},
    two_nodes::{DNS_NODE_PORT, HTTP_NODE_PORT},
};

/// Begins to count, on the other node, the packets that come to its pods' servers from clients as they are; it does not
/// make the kernel track anything.
pub(super) fn count_strays(other: &Place) -> Result<()> {
    let [pods_v4, pods_v6] = PODS;
    let ports = format!("th dport {{ {HTTP_PORT}, {DNS_PORT} }} counter name strays");
    netfilter::nft(
        other,
        &format!(
            "table inet soak {{
    counter strays {{ }}
    chain prerouting {{
        type filter hook prerouting priority raw; policy accept;
        ip saddr != {{ {NODE_V4}, {pods_v4} }} ip daddr {pods_v4} meta l4proto {{ tcp, udp }} {ports}
        ip6 saddr != {{ {NODE_V6}, {pods_v6} }} ip6 daddr {pods_v6} meta l4proto {{ tcp, udp }} {ports}
    }}
}}
"
        ),
    )
}

/// How many there were.
pub(super) fn strays(other: &Place) -> Result<u64> {
    let mut command = Command::new("nft");
    command.args(["-j", "list", "counter", "inet", "soak", "strays"]);
    let output = other.namespace().run(|| command.output())?.context("nft")?;
    ensure!(output.status.success(), "nft: {}", String::from_utf8_lossy(&output.stderr).trim());
    let listed: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let objects = listed["nftables"].as_array().context("a list of objects")?;
    objects.iter().find_map(|object| object["counter"]["packets"].as_u64()).context("a counter's packets")
}

/// What a place's conntrack has of connections and exchanges with the Service. All of them are over.
pub(super) fn left(place: &Place) -> Result<Vec<Tracked>> {
    let mut found = netfilter::tracked(place)?;
    let ports = [HTTP_PORT, DNS_PORT, HTTP_NODE_PORT, DNS_NODE_PORT];
    found.retain(|one| ports.iter().any(|port| one.has_port(*port)));
    Ok(found)
}
