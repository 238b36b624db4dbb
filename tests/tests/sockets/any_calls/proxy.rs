//! Who translates in a world: the agent, or netfilter in kube-proxy's shape, by which the model itself is judged.

use std::{
    fmt::Write,
    net::{IpAddr, SocketAddr},
    process::Command,
};

use anyhow::{Context, Result};
use sidestep_tests::{Agent, cluster::DNS_PORT, netfilter::nft, place::Place};

/// Whose rules are in force.
pub(super) enum Proxy {
    /// Sidestep's.
    Agent(Box<Agent>),
    /// Netfilter's on the node, by which pods' packets for Services pass.
    Netfilter,
}

/// Where a Service is found in one family, and who answers for it.
pub(super) struct Frontend {
    pub(super) address: SocketAddr,
    pub(super) choosable: Vec<IpAddr>,
    pub(super) serving: Vec<IpAddr>,
}

/// Loads rules for these Services instead of those there were. All other addresses of Services are rejected.
pub(super) fn load_rules(node: &Place, frontends: &[Frontend]) -> Result<()> {
    let mut rules = String::new();
    for (family, range) in [("ip", "10.96.0.0/12"), ("ip6", "fd00:10:96::/48")] {
        // The first line makes the table, so that there is one to delete.
        write!(
            rules,
            "table {family} services\ndelete table {family} services\ntable {family} services {{
    chain translate {{
        type nat hook prerouting priority dstnat; policy accept;
"
        )?;
        for frontend in frontends.iter().filter(|frontend| frontend.address.is_ipv4() == (family == "ip")) {
            let (ip, port) = (frontend.address.ip(), frontend.address.port());
            let count = frontend.choosable.len();
            if count == 0 {
                continue;
            }
            let pods: Vec<String> =
                frontend.choosable.iter().zip(0..).map(|(pod, number)| format!("{number} : {pod}")).collect();
            writeln!(
                rules,
                "        {family} daddr {ip} udp dport {port} dnat to numgen random mod {count} map {{ {} }} : {DNS_PORT}",
                pods.join(", ")
            )?;
        }
        // Pods are on one bridge: without masquerade their answers would not pass here.
        write!(
            rules,
            "    }}
    chain hide {{
        type nat hook postrouting priority srcnat; policy accept;
        ct status dnat masquerade
    }}
    chain nobody {{
        type filter hook forward priority filter; policy accept;
        {family} daddr {range} reject
    }}
}}
"
        )?;
    }
    nft(node, &rules)
}

/// Forgets exchanges with pods that serve no longer, as kube-proxy does.
pub(super) fn forget_stale(node: &Place, frontends: &[Frontend], pods: &[IpAddr]) -> Result<()> {
    for Frontend { address, serving, .. } in frontends {
        let stale = pods.iter().filter(|pod| pod.is_ipv4() == address.is_ipv4() && !serving.contains(pod));
        for pod in stale {
            let family = if pod.is_ipv4() { "ipv4" } else { "ipv6" };
            let (vip, pod) = (address.ip().to_string(), pod.to_string());
            let mut command = Command::new("conntrack");
            command.args(["-D", "-f", family, "-p", "udp", "--orig-dst", &vip, "--reply-src", &pod]);
            // It fails if there is none.
            node.namespace().run(|| command.output())?.context("the program `conntrack`")?;
        }
    }
    Ok(())
}
