//! `sidestep takeover` compares what kube-proxy's rules serve with what Sidestep serves, and removes nothing if a difference
//! matters.

use serde_json::Value;
use sidestep_tests::{
    TwoNodes, in_both_extremes,
    kube_proxy::{Flavour, KubeProxy, Proxied, load},
    netfilter,
};

use crate::talks::{forgotten, publish};

in_both_extremes!(rules_of_mode_nftables_are_compared, rules_of_mode_iptables_are_compared);

/// ST-11.
fn rules_of_mode_nftables_are_compared(nodes: &TwoNodes) {
    differences_are_named(nodes, Flavour::Nftables);
}

/// ST-11.
fn rules_of_mode_iptables_are_compared(nodes: &TwoNodes) {
    differences_are_named(nodes, Flavour::Iptables);
}

fn differences_are_named(nodes: &TwoNodes, flavour: Flavour) {
    let (_servers, mut rules) = publish(nodes);
    load(nodes.node(), flavour, &rules).expect("rules");
    let _agent = nodes.lab().agent().expect("an agent");
    let same = compared(nodes, 0);
    assert_eq!((&same["frontends"], &same["services"]), (&24.into(), &4.into()), "{same}");
    let none = Value::Array(Vec::new());
    assert_eq!([&same["differences"], &same["notUnderstood"]], [&none, &none], "{same}");

    // Another endpoint, and a Service that Sidestep does not know.
    let moved: Proxied =
        Proxied { endpoint: "10.244.1.98:8080".parse().expect("an address"), ..rules[0].clone() };
    rules[0] = moved;
    rules.push(forgotten());
    if flavour == Flavour::Nftables {
        let gone = "delete table ip kube-proxy\ndelete table ip6 kube-proxy\n";
        netfilter::nft(nodes.node(), gone).expect("rules");
    }
    load(nodes.node(), flavour, &rules).expect("rules");
    let differ = compared(nodes, 1);
    let forgotten = difference(&differ, "default/forgotten:http", "frontend");
    assert_eq!((&forgotten["matters"], &forgotten["sidestep"]), (&true.into(), &"not there".into()));
    let frontends = forgotten["frontends"].to_string();
    assert!(
        frontends.contains("10.96.0.200:80/TCP") && frontends.contains("node-IPv4:30099/TCP"),
        "{frontends}"
    );
    for what in ["endpoints for this node", "endpoints for others"] {
        let moved = difference(&differ, "default/here:http", what);
        assert_eq!((&moved["matters"], &moved["kubeProxy"]), (&false.into(), &"10.244.1.98:8080".into()));
        assert!(moved["because"].as_str().is_some_and(|why| why.contains("kube-proxy is gone")), "{moved}");
        assert_eq!(moved["frontends"].as_array().map(Vec::len), Some(3), "{moved}");
    }

    // While kube-proxy runs, it has had the time to follow.
    let folder = nodes.lab().folder("kube-proxy").expect("a folder");
    let kube_proxy = KubeProxy::start(nodes.node(), &folder).expect("a process");
    let differ = compared(nodes, 1);
    assert_eq!(difference(&differ, "default/here:http", "endpoints for others")["matters"], true);
    let told = refused(nodes);
    let named = format!("process {} (kube-proxy) still runs", kube_proxy.pid());
    assert!(told.contains(&named), "{told}");
    drop(kube_proxy);

    let told = refused(nodes);
    assert!(told.contains("1 differences matter, so kube-proxy's rules stay"), "{told}");
    let named = "matters: default/forgotten:http (node-IPv4:30099/TCP, 10.96.0.200:80/TCP)";
    assert!(told.contains(named), "{told}");
    assert_eq!(compared(nodes, 1)["frontends"], 26, "nothing was removed");
    let despite = ["takeover", "--despite-differences", "--wait", "30s"];
    let output = nodes.lab().sidestep(&despite).expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.ends_with("done: nothing of kube-proxy's is left\n"), "{said}");
}

/// What `--compare` tells, and its exit status.
fn compared(nodes: &TwoNodes, status: i32) -> Value {
    let output = nodes.lab().sidestep(&["takeover", "--compare", "-o", "json"]).expect("it runs");
    let (said, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(status), "{said}{error}");
    serde_json::from_str(&said).unwrap_or_else(|wrong| panic!("{wrong}: {said}{error}"))
}

fn difference<'a>(compared: &'a Value, service: &str, what: &str) -> &'a Value {
    let all = compared["differences"].as_array().expect("a list");
    let found = all.iter().find(|one| one["service"] == service && one["what"] == what);
    found.unwrap_or_else(|| panic!("no {what} of {service}: {compared:#}"))
}

/// What the command says that removes nothing.
fn refused(nodes: &TwoNodes) -> String {
    let output = nodes.lab().sidestep(&["takeover", "--wait", "0s"]).expect("it runs");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    said
}
