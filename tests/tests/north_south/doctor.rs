//! `doctor` names rules and settings that keep north-south packets from pods, and not a CNI's rules that let them pass.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use serde_json::Value;
use sidestep_tests::{TwoNodes, in_every_variant};

use crate::serve;

in_every_variant!(doctor_names_rules_that_keep_packets_from_pods);

/// firewalld's rules, which accept packets that conntrack has translated (`ct status dnat`).
const FIREWALLD: &str = r#"table inet firewalld {
    chain filter_FORWARD {
        type filter hook forward priority 10; policy accept;
        ct state { established, related } accept
        ct status dnat accept
        iifname "lo" accept
        iifname "pods" accept
        ct state invalid drop
        reject with icmpx admin-prohibited
    }
}
"#;

/// A FORWARD policy like that of Docker and ufw, without their accepting rules.
const DROP: &str = "table ip strict {
    chain FORWARD {
        type filter hook forward priority 0; policy drop;
        ct state { established, related } accept
        ip daddr 10.244.1.0/24 accept
    }
}
";

fn doctor_names_rules_that_keep_packets_from_pods(nodes: &TwoNodes) {
    let servers = [nodes.backend_here("here"), nodes.backend_there("there")].map(|made| made.expect("a pod"));
    let _agent = serve(nodes, &[&servers[0], &servers[1]]);
    let (outcome, detail) = check(nodes, "firewall rules for forwarding");
    assert!(outcome == "ok" && detail.contains("no rule"), "{outcome}: {detail}");
    assert_eq!(check(nodes, "forwarding").0, "ok");
    assert_eq!(check(nodes, "order of programs at devices").0, "ok");

    nft(nodes, FIREWALLD);
    let (outcome, detail) = check(nodes, "firewall rules for forwarding");
    for part in [
        "warning".to_owned(),
        "table inet firewalld, chain filter_FORWARD: `reject with icmpx admin-prohibited".to_owned(),
        servers[0].place.v4.to_string(),
        servers[1].place.v6.to_string(),
        "trusted zone".to_owned(),
    ] {
        assert!(format!("{outcome}: {detail}").contains(&part), "{part}: {outcome}: {detail}");
    }
    nft(nodes, "delete table inet firewalld\n");

    nft(nodes, DROP);
    let (outcome, detail) = check(nodes, "firewall rules for forwarding");
    let (here, there) = (servers[0].place.v4.to_string(), servers[1].place.v4.to_string());
    assert!(outcome == "warning" && detail.contains("chain FORWARD: `policy drop`"), "{detail}");
    assert!(detail.contains(&there) && !detail.contains(&here), "{detail}");
    nft(nodes, "delete table ip strict\n");
    assert_eq!(check(nodes, "firewall rules for forwarding").0, "ok");

    nodes.node().run(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "0")).expect("the sysctl");
    let (outcome, detail) = check(nodes, "forwarding");
    assert!(outcome == "warning" && detail.contains("net.ipv4.ip_forward"), "{outcome}: {detail}");
}

/// How a check of `doctor` ends, and its detail.
fn check(nodes: &TwoNodes, name: &str) -> (String, String) {
    let output = nodes.lab().sidestep(&["doctor", "-o", "json"]).expect("it runs");
    let checks: Vec<Value> = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    let found = checks.iter().find(|check| check["name"] == name).expect("the check");
    let field = |name: &str| found[name].as_str().expect("text").to_owned();
    (field("outcome"), field("detail"))
}

fn nft(nodes: &TwoNodes, rules: &str) {
    let run = || {
        let mut command = Command::new("nft");
        let mut child = command.args(["-f", "-"]).stdin(Stdio::piped()).spawn().expect("nft");
        child.stdin.take().expect("the pipe").write_all(rules.as_bytes()).expect("written");
        child.wait().expect("it ends").success()
    };
    assert!(nodes.node().run(run), "{rules}");
}
