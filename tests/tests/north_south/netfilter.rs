//! Netfilter has no trace of a Service: neither a rule nor a conntrack entry.

use std::process::Command;

use sidestep_tests::{
    TwoNodes, in_every_variant,
    traffic::{Asker, Conversation},
    two_nodes::{Rules, ways_in},
};

use crate::serve;

in_every_variant!(netfilter_has_no_trace_of_a_service);

/// Text that identifies the Service: its addresses and NodePorts.
const SERVICE: [&str; 9] = [
    "10.96.0.",
    "fd00:10:96:",
    "203.0.113.",
    "2001:db8:203:",
    "198.51.100.",
    "2001:db8:198:",
    "30080",
    "30053",
    "dnat",
];

/// Holds while connections are open; without a CNI the kernel tracks no connection at all.
fn netfilter_has_no_trace_of_a_service(nodes: &TwoNodes) {
    let servers = [nodes.backend_here("here").expect("a pod"), nodes.backend_there("there").expect("a pod")];
    for server in &servers {
        let _agent = serve(nodes, &[server]);
        let mut flows = Vec::new();
        for way in ways_in() {
            nodes.outside().run(|| {
                let mut tcp = Conversation::with(way.tcp).expect("a connection");
                tcp.ask().expect("an answer");
                let udp = Asker::for_address(way.udp).expect("a socket");
                udp.ask(way.udp).expect("an answer");
                flows.push((tcp, udp));
            });
        }
        for node in [nodes.node(), nodes.other_node()] {
            for question in [
                &["nft", "list", "ruleset"][..],
                &["iptables-save"],
                &["ip6tables-save"],
                &["conntrack", "-L", "-f", "ipv4"],
                &["conntrack", "-L", "-f", "ipv6"],
            ] {
                let mut command = Command::new(question[0]);
                command.args(&question[1..]);
                let Ok(output) = node.run(|| command.output()) else {
                    eprintln!("{} is not installed", question[0]);
                    continue;
                };
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                let about =
                    text.lines().find(|line| SERVICE.iter().any(|name| line.to_lowercase().contains(name)));
                assert_eq!(about, None, "{} on {}", question.join(" "), node.name());
            }
        }
        if nodes.variant().rules == Rules::None {
            let file = "/proc/sys/net/netfilter/nf_conntrack_count";
            let tracked = nodes.node().run(|| std::fs::read_to_string(file)).expect("a count");
            assert_eq!(tracked.trim(), "0", "tracked connections");
        }
    }
}
