//! Rules like kube-proxy's on the lab's node: NodePorts with policy Cluster that netfilter translates.
//!
//! The rules match a NodePort by its number at the node's own addresses, mark its packets, translate them to an
//! endpoint (DNAT) and masquerade by the mark, in kube-proxy's chains and order.

use std::{
    fmt::Write,
    net::{IpAddr, SocketAddr},
};

use anyhow::Result;

use crate::{netfilter, place::Place};

/// The mark of packets to masquerade after routing.
const MASQUERADE: &str = "0x4000";

/// The kind of rules.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flavour {
    /// Those of mode `nftables`.
    Nftables,
    /// Those of mode `iptables`.
    Iptables,
}

/// A TCP NodePort with one endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodePort {
    /// Its number.
    pub number: u16,
    /// Its endpoint.
    pub endpoint: SocketAddr,
}

/// Loads the rules for these NodePorts on a node.
pub fn load(node: &Place, flavour: Flavour, node_ports: &[NodePort]) -> Result<()> {
    for v4 in [true, false] {
        let of_family: Vec<NodePort> =
            node_ports.iter().copied().filter(|node_port| node_port.endpoint.is_ipv4() == v4).collect();
        match (flavour, v4) {
            (Flavour::Nftables, _) => netfilter::nft(node, &nftables(v4, &of_family))?,
            (Flavour::Iptables, true) => netfilter::restore(node, "iptables-restore", &iptables(&of_family))?,
            (Flavour::Iptables, false) => {
                netfilter::restore(node, "ip6tables-restore", &iptables(&of_family))?;
            }
        }
    }
    Ok(())
}

fn nftables(v4: bool, node_ports: &[NodePort]) -> String {
    let family = if v4 { "ip" } else { "ip6" };
    let (mut chains, mut elements) = (String::new(), Vec::new());
    for NodePort { number, endpoint } in node_ports {
        let _ = write!(
            chains,
            "    chain external-{number} {{
        jump mark-for-masquerade
        meta l4proto tcp dnat to {endpoint}
    }}
"
        );
        elements.push(format!("tcp . {number} : goto external-{number}"));
    }
    format!(
        "table {family} kube-proxy {{
    chain mark-for-masquerade {{ mark set mark or {MASQUERADE}; }}
{chains}    map service-nodeports {{
        type inet_proto . inet_service : verdict
        elements = {{ {} }}
    }}
    chain services {{
        fib daddr type local meta l4proto . th dport vmap @service-nodeports
    }}
    chain nat-prerouting {{
        type nat hook prerouting priority dstnat; policy accept;
        jump services
    }}
    chain nat-output {{
        type nat hook output priority -100; policy accept;
        jump services
    }}
    chain masquerading {{
        mark and {MASQUERADE} == 0 return
        mark set mark xor {MASQUERADE}
        masquerade fully-random
    }}
    chain nat-postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        jump masquerading
    }}
}}
",
        elements.join(", ")
    )
}

fn iptables(node_ports: &[NodePort]) -> String {
    let (mut chains, mut rules) = (String::new(), String::new());
    for NodePort { number, endpoint } in node_ports {
        let (ip, port) = (endpoint.ip(), endpoint.port());
        let destination = match ip {
            IpAddr::V4(ip) => format!("{ip}:{port}"),
            IpAddr::V6(ip) => format!("[{ip}]:{port}"),
        };
        let _ = write!(chains, ":KUBE-EXT-{number} - [0:0]\n:KUBE-SEP-{number} - [0:0]\n");
        let _ = write!(
            rules,
            "-A KUBE-NODEPORTS -p tcp -m tcp --dport {number} -j KUBE-EXT-{number}
-A KUBE-EXT-{number} -j KUBE-MARK-MASQ
-A KUBE-EXT-{number} -j KUBE-SEP-{number}
-A KUBE-SEP-{number} -p tcp -m tcp -j DNAT --to-destination {destination}
"
        );
    }
    format!(
        "*filter
:KUBE-FORWARD - [0:0]
-A FORWARD -j KUBE-FORWARD
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m mark --mark {MASQUERADE}/{MASQUERADE} -j ACCEPT
-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
*nat
:KUBE-SERVICES - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-MARK-MASQ - [0:0]
{chains}-A PREROUTING -j KUBE-SERVICES
-A OUTPUT -j KUBE-SERVICES
-A POSTROUTING -j KUBE-POSTROUTING
-A KUBE-MARK-MASQ -j MARK --or-mark {MASQUERADE}
-A KUBE-POSTROUTING -m mark ! --mark {MASQUERADE}/{MASQUERADE} -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark {MASQUERADE}
-A KUBE-POSTROUTING -j MASQUERADE --random-fully
{rules}-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
COMMIT
"
    )
}

#[cfg(test)]
mod tests {
    use super::{NodePort, iptables, nftables};

    #[test]
    fn a_node_port_leads_to_its_endpoint_in_both_families() {
        let port =
            |endpoint: &str| [NodePort { number: 30_080, endpoint: endpoint.parse().expect("an address") }];
        let (v4, v6) = (port("10.244.1.10:8080"), port("[fd00::10]:8080"));
        assert!(nftables(true, &v4).contains("dnat to 10.244.1.10:8080"));
        assert!(nftables(false, &v6).contains("dnat to [fd00::10]:8080"));
        assert!(nftables(false, &v6).contains("elements = { tcp . 30080 : goto external-30080 }"));
        assert!(iptables(&v4).contains("DNAT --to-destination 10.244.1.10:8080\n"));
        assert!(iptables(&v6).contains("DNAT --to-destination [fd00::10]:8080\n"));
    }
}
