//! iptables: one chain in which every Service has a rule, a chain for each Service and each endpoint.
//!
//! The rules are tried in order until one matches the Service; its chain chooses an endpoint with the `statistic`
//! match; the endpoint's chain marks hairpin packets, and translates.

use std::fmt::Write as _;

use super::{Ruled, Service};
use crate::topology::PODS;

/// The mark of packets to masquerade after routing.
const MASQUERADE: &str = "0x4000";

/// The nat and filter tables with these Services.
pub(super) fn rules(ruled: &Ruled) -> String {
    let mut chains = String::new();
    let mut rules = String::new();
    for (number, service) in ruled.services.iter().enumerate() {
        let Service { address: vip, port, protocol, node_port, endpoints } = service;
        let _ = writeln!(chains, ":BP-SVC-{number} - [0:0]");
        let _ = writeln!(
            rules,
            "-A BP-SERVICES -d {vip}/32 -p {protocol} -m {protocol} --dport {port} -j BP-SVC-{number}"
        );
        let _ = writeln!(
            rules,
            "-A BP-SVC-{number} ! -s {PODS} -d {vip}/32 -p {protocol} -m {protocol} --dport {port} \
             -j BP-MARK-MASQ"
        );
        if let Some(node_port) = node_port {
            let _ = writeln!(chains, ":BP-EXT-{number} - [0:0]");
            let _ = writeln!(
                rules,
                "-A BP-NODEPORTS -p {protocol} -m {protocol} --dport {node_port} -j BP-EXT-{number}
-A BP-EXT-{number} -j BP-MARK-MASQ
-A BP-EXT-{number} -j BP-SVC-{number}"
            );
        }
        for (endpoint, server) in endpoints.iter().enumerate() {
            let chain = format!("BP-SEP-{number}-{endpoint}");
            let left = endpoints.len() - endpoint;
            let chance = match left {
                1 => String::new(),
                _ => format!(" -m statistic --mode random --probability {:.10}", 1.0 / left as f64),
            };
            let _ = writeln!(chains, ":{chain} - [0:0]");
            let _ = writeln!(rules, "-A BP-SVC-{number}{chance} -j {chain}");
            let _ = writeln!(rules, "-A {chain} -s {}/32 -j BP-MARK-MASQ", server.ip());
            let _ =
                writeln!(rules, "-A {chain} -p {protocol} -m {protocol} -j DNAT --to-destination {server}");
        }
    }
    format!(
        "*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:BP-FORWARD - [0:0]
:BP-REJECTS - [0:0]
-A INPUT -m conntrack --ctstate NEW -j BP-REJECTS
-A FORWARD -m conntrack --ctstate NEW -j BP-REJECTS
-A FORWARD -j BP-FORWARD
-A OUTPUT -m conntrack --ctstate NEW -j BP-REJECTS
-A BP-FORWARD -m conntrack --ctstate INVALID -j DROP
-A BP-FORWARD -m mark --mark {MASQUERADE}/{MASQUERADE} -j ACCEPT
-A BP-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:BP-SERVICES - [0:0]
:BP-NODEPORTS - [0:0]
:BP-POSTROUTING - [0:0]
:BP-MARK-MASQ - [0:0]
{chains}-A PREROUTING -j BP-SERVICES
-A OUTPUT -j BP-SERVICES
-A POSTROUTING -j BP-POSTROUTING
-A BP-MARK-MASQ -j MARK --or-mark {MASQUERADE}
-A BP-POSTROUTING -m mark ! --mark {MASQUERADE}/{MASQUERADE} -j RETURN
-A BP-POSTROUTING -j MARK --xor-mark {MASQUERADE}
-A BP-POSTROUTING -j MASQUERADE --random-fully
{rules}-A BP-SERVICES -m addrtype --dst-type LOCAL -j BP-NODEPORTS
COMMIT
"
    )
}

#[cfg(test)]
mod tests {
    use super::super::tests::{clients_of_pods, node_ports};

    #[test]
    fn the_last_endpoint_takes_the_rest() {
        let rules = super::rules(&clients_of_pods(1));
        assert!(
            rules.contains("-A BP-SVC-0 -m statistic --mode random --probability 0.5000000000 -j BP-SEP-0-0"),
            "{rules}"
        );
        assert!(rules.contains("-A BP-SVC-0 -j BP-SEP-0-1"), "{rules}");
    }

    #[test]
    fn packets_to_a_node_port_are_masqueraded() {
        let rules = super::rules(&node_ports());
        for rule in [
            "-A BP-NODEPORTS -p udp -m udp --dport 30053 -j BP-EXT-0",
            "-A BP-EXT-0 -j BP-MARK-MASQ",
            "-A BP-EXT-0 -j BP-SVC-0",
            "-A BP-SEP-0-0 -p udp -m udp -j DNAT --to-destination 10.244.1.10:53",
        ] {
            assert!(rules.lines().any(|line| line == rule), "{rule}\n{rules}");
        }
    }
}
