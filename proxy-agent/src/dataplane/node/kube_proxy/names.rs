//! What kube-proxy calls its tables and chains, in the modes `nftables` and `iptables`
//! (`pkg/proxy/nftables/proxier.go`, `pkg/proxy/iptables/proxier.go`).

/// Its table in mode `nftables`.
pub(super) const TABLE: &str = "kube-proxy";
/// The tables of iptables that have chains of its.
pub(super) const IPTABLES: [&str; 3] = ["nat", "filter", "mangle"];
/// The chain that accepts forwarded packets of its connections, and in the table `filter` the one that accepts requests
/// to health check node ports, which Sidestep answers, too.
const FORWARDS: &str = "KUBE-FORWARD";
pub(super) const NODE_PORTS: &str = "KUBE-NODEPORTS";
/// The chain without which nothing gets an endpoint.
pub(super) const SERVICES: &str = "KUBE-SERVICES";
/// The chains in the table `filter` that refuse clients of Services without endpoints.
pub(super) const REFUSING: [&str; 2] = [SERVICES, "KUBE-EXTERNAL-SERVICES"];
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

/// Whether a chain only marks packets, in either mode.
pub(super) fn marks(name: &str) -> bool {
    [MARKS, "KUBE-MARK-DROP", "mark-for-masquerade"].contains(&name)
}

/// Whether a chain of iptables lets in some clients only (`loadBalancerSourceRanges`).
pub(super) fn restricts(name: &str) -> bool {
    name.starts_with("KUBE-FW-")
}

/// The Service port of a chain of mode nftables, such as `default/web:http` of
/// `external-OJ4SV5HA-default/web/tcp/http`.
pub(super) fn service_of(chain: &str) -> Option<String> {
    let [_kind, _hash, rest] = chain.splitn(3, '-').collect::<Vec<_>>()[..] else { return None };
    let [namespace, name, _protocol, port] = rest.split('/').collect::<Vec<_>>()[..] else { return None };
    Some(format!("{namespace}/{name}{}{port}", if port.is_empty() { "" } else { ":" }))
}

/// The Service port in the comment of a rule of iptables, such as `default/web:http cluster IP`.
pub(super) fn service_in(comment: &str) -> Option<String> {
    comment.split_whitespace().next().filter(|word| word.contains('/')).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::{is_chain, service_in, service_of};

    #[test]
    fn chains_and_comments_name_the_service() {
        for (chain, service) in [
            ("external-OJ4SV5HA-default/web/tcp/http", Some("default/web:http")),
            ("service-OJ4SV5HA-kube-system/my-dns/udp/", Some("kube-system/my-dns")),
            ("external-tcp-30080", None),
        ] {
            assert_eq!(service_of(chain).as_deref(), service, "{chain}");
        }
        assert_eq!(service_in("default/web:http cluster IP").as_deref(), Some("default/web:http"));
        assert_eq!(service_in("kubernetes service portals"), None);
    }

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
