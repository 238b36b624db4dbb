//! What a takeover relies on in the kernel: when does it go on to translate the connections that it knows?

use std::fmt::Write as _;

use sidestep_tests::{
    TwoNodes, in_every_variant,
    kube_proxy::{Flavour, load},
    netfilter,
    two_nodes::Rules,
};

use crate::talks::{assert_go_on, begin, node_ports, rules, serve};

in_every_variant!(known_connections_go_on_while_a_rule_reads_their_state);

/// Connections to each NodePort in each family.
const EACH: usize = 2;

/// A chain of type `nat` keeps translation on, and conntrack goes on only while a rule asks for it: an empty chain is
/// enough where somebody else's rules do, such as a CNI plugin's.
///
/// ST-11.
fn known_connections_go_on_while_a_rule_reads_their_state(nodes: &TwoNodes) {
    let servers = serve(nodes, Flavour::Nftables);
    let mut held = begin(nodes.outside(), &node_ports(nodes), EACH);
    replace(nodes, Some("ct state established"));
    assert_go_on(&mut held, 2, "a rule reads their state");

    if nodes.variant().rules == Rules::None {
        netfilter::nft(nodes.node(), "flush ruleset\n").expect("rules");
        for instead in [Some(""), None] {
            load(nodes.node(), Flavour::Nftables, &rules(&servers)).expect("rules");
            let mut broken = begin(nodes.outside(), &node_ports(nodes), 1);
            replace(nodes, instead);
            let failures = broken.iter_mut().filter_map(|talk| talk.go_on(1)).count();
            assert_eq!(failures, broken.len(), "with {instead:?} instead of kube-proxy's rules");
            netfilter::nft(nodes.node(), "flush ruleset\n").expect("rules");
        }
    }
}

/// Replaces kube-proxy's tables in one step by a chain of type `nat` with this rule, if any.
fn replace(nodes: &TwoNodes, rule: Option<&str>) {
    let mut text = String::new();
    for family in ["ip", "ip6"] {
        let _ = writeln!(text, "delete table {family} kube-proxy");
        if let Some(rule) = rule {
            let _ = writeln!(
                text,
                "table {family} held {{\nchain known {{\ntype nat hook postrouting priority 32767;\n{rule}\n}}\n}}"
            );
        }
    }
    netfilter::nft(nodes.node(), &text).expect("rules");
}
