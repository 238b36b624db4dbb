//! nftables: one verdict map for all Services, a chain for each Service and each endpoint.
//!
//! One lookup finds a Service by address, protocol and port; its chain marks packets to masquerade and chooses an
//! endpoint; the endpoint's chain marks hairpin packets, and translates.

use std::fmt::Write as _;

use super::{Ruled, Service};
use crate::topology::PODS;

/// The mark of packets to masquerade after routing.
const MASQUERADE: &str = "0x4000";

/// A table with these Services.
pub(super) fn rules(ruled: &Ruled) -> String {
    let mut text = String::from("table ip bench_proxy {\n");
    let (mut map, mut addresses, mut node_ports) = (Vec::new(), Vec::new(), Vec::new());
    for (number, service) in ruled.services.iter().enumerate() {
        let Service { address: vip, port, protocol, node_port, endpoints } = service;
        map.push(format!("{vip} . {protocol} . {port} : goto service-{number}"));
        addresses.push(vip.to_string());
        let draw: Vec<String> = (0..endpoints.len())
            .map(|endpoint| format!("{endpoint} : goto endpoint-{number}-{endpoint}"))
            .collect();
        for (endpoint, server) in endpoints.iter().enumerate() {
            let _ = writeln!(
                text,
                "chain endpoint-{number}-{endpoint} {{
  ip saddr {} jump mark-for-masquerade
  meta l4proto {protocol} dnat to {server}
}}",
                server.ip()
            );
        }
        let _ = writeln!(
            text,
            "chain service-{number} {{
  ip daddr {vip} {protocol} dport {port} ip saddr != {PODS} jump mark-for-masquerade
  numgen random mod {} vmap {{ {} }}
}}",
            endpoints.len(),
            draw.join(", ")
        );
        if let Some(node_port) = node_port {
            node_ports.push(format!("{protocol} . {node_port} : goto external-{number}"));
            let _ = writeln!(
                text,
                "chain external-{number} {{
  jump mark-for-masquerade
  goto service-{number}
}}"
            );
        }
    }
    let (map, addresses, node) = (map.join(", "), addresses.join(", "), ruled.node);
    let node_ports = match node_ports.as_slice() {
        [] => String::new(),
        some => format!("  elements = {{ {} }}\n", some.join(", ")),
    };
    let _ = write!(
        text,
        "chain mark-for-masquerade {{
  meta mark set meta mark or {MASQUERADE}
}}
chain masquerading {{
  meta mark and {MASQUERADE} == 0 return
  meta mark set meta mark xor {MASQUERADE}
  masquerade fully-random
}}
chain reject-chain {{
  reject
}}
set cluster-ips {{
  type ipv4_addr
  elements = {{ {addresses} }}
}}
map service-ips {{
  type ipv4_addr . inet_proto . inet_service : verdict
  elements = {{ {map} }}
}}
map no-endpoint-services {{
  type ipv4_addr . inet_proto . inet_service : verdict
}}
map no-endpoint-nodeports {{
  type inet_proto . inet_service : verdict
}}
map service-nodeports {{
  type inet_proto . inet_service : verdict
{node_ports}}}
set nodeport-ips {{
  type ipv4_addr
  elements = {{ {node} }}
}}
chain services {{
  ip daddr . meta l4proto . th dport vmap @service-ips
  ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports
}}
chain service-endpoints-check {{
  ip daddr . meta l4proto . th dport vmap @no-endpoint-services
}}
chain nodeport-endpoints-check {{
  ip daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports
}}
chain cluster-ips-check {{
  ip daddr @cluster-ips reject
}}
chain filter-prerouting {{
  type filter hook prerouting priority -110; policy accept;
  ct state new jump nodeport-endpoints-check
}}
chain filter-input {{
  type filter hook input priority filter; policy accept;
  ct state new jump service-endpoints-check
}}
chain filter-forward {{
  type filter hook forward priority filter; policy accept;
  ct state new jump service-endpoints-check
  ct state new jump cluster-ips-check
}}
chain filter-output {{
  type filter hook output priority -110; policy accept;
  ct state new jump service-endpoints-check
}}
chain nat-prerouting {{
  type nat hook prerouting priority dstnat; policy accept;
  jump services
}}
chain nat-output {{
  type nat hook output priority -100; policy accept;
  jump services
}}
chain nat-postrouting {{
  type nat hook postrouting priority srcnat; policy accept;
  jump masquerading
}}
}}
"
    );
    text
}

#[cfg(test)]
mod tests {
    use super::super::tests::{clients_of_pods, node_ports};

    #[test]
    fn every_service_is_in_the_map_and_has_its_chains() {
        let rules = super::rules(&clients_of_pods(3));
        for number in 0..3 {
            assert!(rules.contains(&format!(": goto service-{number}")), "{rules}");
            assert!(rules.contains(&format!("chain service-{number} {{")), "{rules}");
            assert!(rules.contains(&format!("chain endpoint-{number}-1 {{")), "{rules}");
        }
    }

    #[test]
    fn packets_to_a_node_port_are_masqueraded() {
        let rules = super::rules(&node_ports());
        assert!(rules.contains("elements = { udp . 30053 : goto external-0 }"), "{rules}");
        let chain = "chain external-0 {\n  jump mark-for-masquerade\n  goto service-0\n}";
        assert!(rules.contains(chain), "{rules}");
        assert!(rules.contains("meta l4proto udp dnat to 10.244.1.10:53"), "{rules}");
    }
}
