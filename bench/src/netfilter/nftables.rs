//! nftables: one verdict map for all Services, a chain for each Service and each endpoint.
//!
//! A Service is found by address, protocol and port in one lookup; its chain marks what must be masqueraded and
//! draws an endpoint; the endpoint's chain marks a pod that talks to itself, and translates.

use std::fmt::Write as _;

use crate::topology::{PODS, SERVER_PORT, SERVERS, SERVICE_PORT, service_address};

/// The mark of what is masqueraded after routing.
const MASQUERADE: &str = "0x4000";

/// A table with this many Services.
pub(super) fn rules(services: u32) -> String {
    let mut text = String::from("table ip bench_proxy {\n");
    let mut map = String::new();
    let mut addresses = String::new();
    for number in 0..services {
        let vip = service_address(number);
        let comma = if number == 0 { "" } else { ", " };
        let _ = write!(map, "{comma}{vip} . tcp . {SERVICE_PORT} : goto service-{number}");
        let _ = write!(addresses, "{comma}{vip}");
        let endpoints: Vec<String> = (0..SERVERS.len())
            .map(|endpoint| format!("{endpoint} : goto endpoint-{number}-{endpoint}"))
            .collect();
        for (endpoint, server) in SERVERS.iter().enumerate() {
            let _ = writeln!(
                text,
                "chain endpoint-{number}-{endpoint} {{
  ip saddr {server} jump mark-for-masquerade
  meta l4proto tcp dnat to {server}:{SERVER_PORT}
}}"
            );
        }
        let _ = writeln!(
            text,
            "chain service-{number} {{
  ip daddr {vip} tcp dport {SERVICE_PORT} ip saddr != {PODS} jump mark-for-masquerade
  numgen random mod {} vmap {{ {} }}
}}",
            SERVERS.len(),
            endpoints.join(", ")
        );
    }
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
}}
set nodeport-ips {{
  type ipv4_addr
  elements = {{ 10.244.1.1 }}
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
    #[test]
    fn every_service_is_in_the_map_and_has_its_chains() {
        let rules = super::rules(3);
        for number in 0..3 {
            assert!(rules.contains(&format!(": goto service-{number}")), "{rules}");
            assert!(rules.contains(&format!("chain service-{number} {{")), "{rules}");
            assert!(rules.contains(&format!("chain endpoint-{number}-1 {{")), "{rules}");
        }
    }
}
