//! `sidestep run --take-over`: the agent takes over by itself once kube-proxy is gone, and `status` shows how far it is.

use std::time::Duration;

use serde_json::{Value, json};
use sidestep_tests::{
    Agent, TwoNodes,
    eventually::wait_for,
    in_both_extremes,
    kube_proxy::{Flavour, KubeProxy, load},
};

use crate::talks::{Ledger, begin, client_pod, cluster_ips, forgotten, node_ports, serve, told};

in_both_extremes!(
    the_agent_takes_over_from_rules_of_mode_nftables,
    the_agent_takes_over_from_rules_of_mode_iptables,
);

/// Requests on each connection.
const QUESTIONS: usize = 3;

/// ST-11.
fn the_agent_takes_over_from_rules_of_mode_nftables(nodes: &TwoNodes) {
    by_itself(nodes, Flavour::Nftables);
}

/// ST-11.
fn the_agent_takes_over_from_rules_of_mode_iptables(nodes: &TwoNodes) {
    by_itself(nodes, Flavour::Iptables);
}

fn by_itself(nodes: &TwoNodes, flavour: Flavour) {
    let _servers = serve(nodes, flavour);
    let folder = nodes.lab().folder("kube-proxy").expect("a folder");
    let kube_proxy = KubeProxy::start(nodes.node(), &folder).expect("a process");
    let pod = client_pod(nodes);
    let mut old = begin(nodes.outside(), &node_ports(nodes), 5);
    old.extend(begin(&pod, &cluster_ips(80), 5));
    let agent = Agent::reading(nodes.lab()).arguments(["--take-over"]);
    let mut agent = agent.started(nodes.lab()).expect("an agent");
    let running = format!("process {} (kube-proxy)", kube_proxy.pid());
    until(nodes, "kubeProxyRuns");
    assert_eq!(progress(nodes)["running"], json!([running]));
    let status = nodes.lab().sidestep(&["status"]).expect("it runs");
    let status = String::from_utf8_lossy(&status.stdout);
    let line = format!("takeover  waiting until kube-proxy is gone: {running}\n");
    assert!(status.contains(&line), "{status}");
    let mut ledger = Ledger::default();
    ledger.go_on(&mut old, QUESTIONS, "it waits");

    drop(kube_proxy);
    until(nodes, "connectionsLeft");
    assert_eq!(progress(nodes)["left"]["TCP"], 40);
    // The next agent goes on.
    agent.kill().expect("killed");
    agent.restart(nodes.lab()).expect("an agent");
    ledger.go_on(&mut old, QUESTIONS, "the rules are gone");
    ledger.close("takeover by the agent", old.len());
    until(nodes, "connectionsLeft");
    for talk in old {
        talk.close().expect("closed");
    }
    until(nodes, "nothing");
    let said = nodes.lab().sidestep(&["takeover"]).expect("it runs");
    let said = String::from_utf8_lossy(&said.stdout);
    assert!(said.contains("kube-proxy has no rules here"), "{said}");

    // kube-proxy comes back, with a Service that Sidestep does not know, and goes.
    load(nodes.node(), flavour, &[forgotten()]).expect("rules");
    // It looks every twenty seconds; one that starts looks at once.
    agent.stop().expect("it stops");
    agent.restart(nodes.lab()).expect("an agent");
    until(nodes, "differs");
    let problems = told(nodes, &["status", "-o", "json"])["agent"]["problems"].to_string();
    assert!(problems.contains("--take-over") && problems.contains("default/forgotten:http"), "{problems}");
    agent.stop().expect("it stops");
}

/// Waits for a state. The report has it within five seconds.
fn until(nodes: &TwoNodes, state: &str) {
    let mut seen = Value::Null;
    let reached = wait_for(Duration::from_secs(30), state, || {
        seen = progress(nodes);
        seen["state"] == state
    });
    assert!(reached.is_ok(), "not {state}: {seen}");
}

fn progress(nodes: &TwoNodes) -> Value {
    told(nodes, &["status", "-o", "json"])["agent"]["takeover"].clone()
}
