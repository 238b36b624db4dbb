//! Who may use a Service's LoadBalancer IPs?

use proxy_common::{Address, SourceRange};

use super::{AllowedClients, Family, view::View};
use crate::model::Service;

/// ST-1: `loadBalancerSourceRanges`, family by family. A range that holds everyone of the family opens it, and
/// so does having ranges of the other family only. A family for which an unreadable range may have been meant
/// stays closed: a typo must not let everyone in.
///
/// Where the node is in a range, a LoadBalancer IP that is bound on the node may come as the source, too: that
/// is what the kernel chooses for a connection to an address of its own.
pub(super) fn allowed_clients(service: &Service, family: Family, view: View<'_>) -> AllowedClients {
    let is_v4 = family == Family::V4;
    let Some(written) = &service.source_ranges else { return AllowedClients::Everyone };
    let mut ranges: Vec<SourceRange> =
        written.ranges.iter().filter(|range| range.is_v4() == is_v4).copied().collect();
    if ranges.iter().any(SourceRange::is_everyone) || (ranges.is_empty() && !written.unreadable) {
        return AllowedClients::Everyone;
    }
    if view.primary(family).is_some_and(|node| ranges.iter().any(|range| range.contains(node))) {
        let vips = service.load_balancer_ips.iter().map(|ip| ip.address);
        ranges.extend(vips.filter(|vip: &Address| vip.is_v4() == is_v4).map(SourceRange::one));
        ranges.sort_unstable();
        ranges.dedup();
    }
    AllowedClients::Only(ranges.into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plan::testing;

    /// What `allowed_clients` says, as text; `*` for everyone.
    fn found(ranges: &[&str], vips: &[&str], family: Family) -> Vec<String> {
        let ingress: Vec<_> = vips.iter().map(|ip| json!({"ip": ip})).collect();
        let service = testing::service_object(json!({
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"clusterIPs": ["10.96.0.1", "fd00::1"], "loadBalancerSourceRanges": ranges},
            "status": {"loadBalancer": {"ingress": ingress}},
        }));
        match allowed_clients(&service, family, testing::view()) {
            AllowedClients::Everyone => vec!["*".to_owned()],
            AllowedClients::Only(ranges) => ranges.iter().map(ToString::to_string).collect(),
        }
    }

    /// ST-1: per family; `/0`, ranges of the other family only, and what cannot be read.
    #[test]
    fn ranges_restrict_the_family_that_they_are_of() {
        for (ranges, v4, v6) in [
            (&[][..], &["*"][..], &["*"][..]),
            (&["10.0.0.0/8", " 172.16.0.0/12 "], &["10.0.0.0/8", "172.16.0.0/12"], &["*"]),
            (&["2001:db8::/32"], &["*"], &["2001:db8::/32"]),
            (&["10.0.0.0/8", "2001:db8::/32"], &["10.0.0.0/8"], &["2001:db8::/32"]),
            (&["10.0.0.0/8", "0.0.0.0/0"], &["*"], &["*"]),
            (&["10.0.0.0/8", "::/0"], &["10.0.0.0/8"], &["*"]),
            (&["10.0.0.0/33"], &[], &[]),
            (&["nonsense", "10.0.0.0/8"], &["10.0.0.0/8"], &[]),
            (&["nonsense", "0.0.0.0/0"], &["*"], &[]),
        ] {
            assert_eq!(found(ranges, &[], Family::V4), v4, "{ranges:?}");
            assert_eq!(found(ranges, &[], Family::V6), v6, "{ranges:?}");
        }
    }

    /// ST-1: the node is 192.168.0.1 and `fd00:168::1` here.
    #[test]
    fn a_node_within_a_range_may_come_from_the_vip_itself() {
        let vips = ["203.0.113.7", "203.0.113.8", "2001:db8::7"];
        for (ranges, v4, v6) in [
            (
                &["192.168.0.0/16"][..],
                &["192.168.0.0/16", "203.0.113.7/32", "203.0.113.8/32"][..],
                &["*"][..],
            ),
            (&["10.0.0.0/8", "fd00:168::/64"], &["10.0.0.0/8"], &["2001:db8::7/128", "fd00:168::/64"]),
        ] {
            assert_eq!(found(ranges, &vips, Family::V4), v4, "{ranges:?}");
            assert_eq!(found(ranges, &vips, Family::V6), v6, "{ranges:?}");
        }
    }
}
