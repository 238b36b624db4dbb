//! What the lab's kernels saw and kept.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{
    cluster::{DNS_PORT, HTTP_PORT},
    netfilter::{self, Tracked},
    place::Place,
    topology::{NODE_V4, NODE_V6, PODS},
    two_nodes::{DNS_NODE_PORT, HTTP_NODE_PORT},
};

/// Installs a counter on the other node of packets to its pods' servers with a client's address; the rule does not
/// activate connection tracking.
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

/// Reads that counter.
pub(super) fn strays(other: &Place) -> Result<u64> {
    let mut command = Command::new("nft");
    command.args(["-j", "list", "counter", "inet", "soak", "strays"]);
    let output = other.namespace().run(|| command.output())?.context("nft")?;
    ensure!(output.status.success(), "nft: {}", String::from_utf8_lossy(&output.stderr).trim());
    let listed: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let objects = listed["nftables"].as_array().context("a list of objects")?;
    objects.iter().find_map(|object| object["counter"]["packets"].as_u64()).context("a counter's packets")
}

/// A place's conntrack entries of connections and exchanges with the Service, all of which have finished.
pub(super) fn left(place: &Place) -> Result<Vec<Tracked>> {
    let mut found = netfilter::tracked(place)?;
    let ports = [HTTP_PORT, DNS_PORT, HTTP_NODE_PORT, DNS_NODE_PORT];
    found.retain(|one| ports.iter().any(|port| one.has_port(*port)));
    Ok(found)
}
