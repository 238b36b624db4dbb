//! What kube-proxy calls its tables and chains, in the modes `nftables` and `iptables`
//! (`pkg/proxy/nftables/proxier.go`, `pkg/proxy/iptables/proxier.go`).

/// Its table in mode `nftables`.
pub(super) const TABLE: &str = "kube-proxy";
/// The tables of iptables that have chains of its.
pub(super) const IPTABLES: [&str; 3] = ["nat", "filter", "mangle"];
/// The chain that accepts forwarded packets of its connections, and in the table `filter` the one that accepts requests
/// to health check node ports, which Sidestep answers, too.
const FORWARDS: &str = "KUBE-FORWARD";
const NODE_PORTS: &str = "KUBE-NODEPORTS";
/// The chain without which nothing gets an endpoint.
const SERVICES: &str = "KUBE-SERVICES";
/// The chain that marks packets, and the one that masquerades those with the mark.
pub(super) const MARKS: &str = "KUBE-MARK-MASQ";
pub(super) const MASQUERADES: &str = "KUBE-POSTROUTING";

/// Chains of one name each. kubelet has others (`KUBE-FIREWALL`, `KUBE-KUBELET-CANARY`, `KUBE-IPTABLES-HINT`), and so has
/// kube-router (`KUBE-ROUTER-INPUT`, `KUBE-POD-FW-…`).
const CHAINS: [&str; 2] = [MARKS, "KUBE-PROXY-CANARY"];
/// Those to which rules in base chains jump. A jump from there to any other chain is somebody else's.
const ENTERED: [&str; 6] =
    [SERVICES, NODE_PORTS, FORWARDS, MASQUERADES, "KUBE-EXTERNAL-SERVICES", "KUBE-PROXY-FIREWALL"];

/// Chains of a Service port or an endpoint: a hash of sixteen characters follows.
const PREFIXES: [&str; 6] = ["KUBE-SVC-", "KUBE-SVL-", "KUBE-EXT-", "KUBE-XLB-", "KUBE-FW-", "KUBE-SEP-"];

/// Whether a chain in one of the tables of iptables is kube-proxy's.
pub(super) fn is_chain(name: &str) -> bool {
    CHAINS.contains(&name) || is_entered(name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Whether kube-proxy's own rules jump there from base chains.
pub(super) fn is_entered(name: &str) -> bool {
    ENTERED.contains(&name)
}

/// Whether a chain accepts packets, and gives no connection an endpoint.
pub(super) fn accepts(table: &str, name: &str) -> bool {
    name == FORWARDS || (table == "filter" && name == NODE_PORTS)
}

/// Whether a chain gives connections their endpoints. Others may be kubelet's: before 1.27 it makes some anew.
pub(super) fn decides(table: &str, name: &str) -> bool {
    table == "nat" && name == SERVICES
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
