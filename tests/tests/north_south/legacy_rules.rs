//! kube-proxy's rules in tables of iptables-legacy are named, with what to do, and nothing is removed.

use std::process::Command;

use sidestep_tests::{TwoNodes, in_both_extremes, netfilter, skip};

in_both_extremes!(rules_of_kube_proxy_in_legacy_tables_refuse_the_takeover);

/// Such as any other program may have.
const OF_OTHERS: &str = "*nat
:OTHERS - [0:0]
COMMIT
";
const OF_KUBE_PROXY: &str = "*nat
:KUBE-SERVICES - [0:0]
-A PREROUTING -j KUBE-SERVICES
COMMIT
";

/// ST-11.
fn rules_of_kube_proxy_in_legacy_tables_refuse_the_takeover(nodes: &TwoNodes) {
    let programs = ["iptables-legacy-restore", "ip6tables-legacy-restore"];
    if Command::new(programs[0]).arg("--version").output().is_err() {
        skip!("the program `iptables-legacy-restore` is not installed");
    }
    let _agent = nodes.lab().agent().expect("an agent");
    for program in programs {
        netfilter::restore(nodes.node(), program, OF_OTHERS).expect("rules");
    }
    let output = nodes.lab().sidestep(&["takeover"]).expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("kube-proxy has no rules here"), "{said}");

    for (program, table) in [(programs[1], "in ip6 nat of"), (programs[0], "in ip nat and ip6 nat of")] {
        netfilter::restore(nodes.node(), program, OF_KUBE_PROXY).expect("rules");
        for arguments in [&["takeover"][..], &["takeover", "--compare"]] {
            let output = nodes.lab().sidestep(arguments).expect("it runs");
            let error = String::from_utf8_lossy(&output.stderr);
            let named =
                error.contains(table) && error.contains("iptables-legacy") && error.contains("reboot");
            assert!(output.status.code() == Some(1) && named, "{error}");
        }
    }
}
