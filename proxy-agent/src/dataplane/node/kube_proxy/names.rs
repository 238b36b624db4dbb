//! What kube-proxy calls its tables and chains, in the modes `nftables` and `iptables`
//! (`pkg/proxy/nftables/proxier.go`, `pkg/proxy/iptables/proxier.go`).

/// Its table in mode `nftables`.
pub(super) const TABLE: &str = "kube-proxy";
/// The tables of iptables that have chains of its.
pub(super) const IPTABLES: [&str; 3] = ["nat", "filter", "mangle"];
/// The chain that accepts forwarded packets of its connections. They need it until they are over.
pub(super) const ACCEPTS: &str = "KUBE-FORWARD";
/// The chain that marks packets, and the one that masquerades those with the mark.
pub(super) const MARKS: &str = "KUBE-MARK-MASQ";
pub(super) const MASQUERADES: &str = "KUBE-POSTROUTING";

/// Chains of one name each. kubelet has others (`KUBE-FIREWALL`, `KUBE-KUBELET-CANARY`, `KUBE-IPTABLES-HINT`), and so has
/// kube-router (`KUBE-ROUTER-INPUT`, `KUBE-POD-FW-…`).
const CHAINS: [&str; 8] = [
    ACCEPTS,
    MARKS,
    MASQUERADES,
    "KUBE-SERVICES",
    "KUBE-EXTERNAL-SERVICES",
    "KUBE-NODEPORTS",
    "KUBE-PROXY-FIREWALL",
    "KUBE-PROXY-CANARY",
];

/// Chains of a Service port or an endpoint: a hash of sixteen characters follows.
const PREFIXES: [&str; 6] = ["KUBE-SVC-", "KUBE-SVL-", "KUBE-EXT-", "KUBE-XLB-", "KUBE-FW-", "KUBE-SEP-"];

/// Whether a chain in one of the tables of iptables is kube-proxy's.
pub(super) fn is_chain(name: &str) -> bool {
    CHAINS.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::is_chain;

    #[test]
    fn chains_of_kubelet_and_of_others_are_not_kube_proxys() {
        for name in
            ["KUBE-SERVICES", "KUBE-SVC-TCOU7JCQXEZGVUNU", "KUBE-SEP-2SKZDJWQ3VHBA7Q5", "KUBE-FORWARD"]
        {
            assert!(is_chain(name), "{name}");
        }
        for name in [
            "KUBE-FIREWALL",
            "KUBE-KUBELET-CANARY",
            "KUBE-IPTABLES-HINT",
            "KUBE-ROUTER-INPUT",
            "KUBE-POD-FW-ABC",
            "CNI-HOSTPORT-DNAT",
            "PREROUTING",
        ] {
            assert!(!is_chain(name), "{name}");
        }
    }
}
