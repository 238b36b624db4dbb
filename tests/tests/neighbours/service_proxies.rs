//! Another service proxy on the node: `doctor` names it before anything is attached, and the agent in its log and its
//! report before it attaches anything itself.

use std::{fs, process::Command};

use sidestep_tests::{
    Agent, bpftool, cluster,
    cluster::{Cluster, at, service},
    foreign::counted::{Attached, CgroupHook, Counted},
    traffic::ask,
};

use crate::{check, status};

const CHECK: &str = "other service proxies";

#[test]
fn socket_programs_of_cilium_and_calico_are_named() {
    let cluster = cluster!(1);
    let root = cluster.lab.root().path();
    assert_eq!(check(&cluster.lab, CHECK).0, "ok");
    let attach =
        |name| Counted::at_cgroup(root, CgroupHook::Connect4, Attached::Multi, name).expect("attaching");
    // The kernel keeps fifteen characters of a name.
    let theirs = [attach("cil_sock4_connect"), attach("calico_connect_v4"), attach("tracer")];
    let parts = [
        format!("Cilium translates the same calls: its programs are attached at {}", root.display()),
        format!("connect4: `cil_sock4_conne` ({})", theirs[0].id()),
        "kubeProxyReplacement".to_owned(),
        format!("connect4: `calico_connect_` ({})", theirs[1].id()),
    ];
    named_everywhere(&cluster, &parts, "tracer");
    let programs = bpftool::cgroup_programs(root).expect("bpftool");
    assert!(theirs.iter().all(|program| programs.contains(&program.id().into())), "{programs:?}");
    cluster.client.run(|| ask(at("10.96.0.10:80"))).expect("an answer");
}

#[test]
fn rules_of_kube_proxy_are_named() {
    let cluster = cluster!(1);
    let run = |program: &str, arguments: &[&str]| {
        let ended = cluster.lab.node().run(|| Command::new(program).args(arguments).status());
        assert!(ended.expect("it starts").success(), "{program} {arguments:?}");
    };
    run("nft", &["add", "table", "ip", "kube-proxy"]);
    run("iptables-nft", &["-t", "nat", "-N", "KUBE-SERVICES"]);
    let parts = ["kube-proxy's rules are here (mode nftables, iptables)", "sidestep takeover"];
    named_everywhere(&cluster, &parts.map(str::to_owned), "Cilium");
    run("iptables-nft", &["-t", "nat", "-X", "KUBE-SERVICES"]);
    run("nft", &["delete", "table", "ip", "kube-proxy"]);
    assert_eq!(check(&cluster.lab, CHECK), ("ok".to_owned(), "none".to_owned()));
}

/// `doctor`, the log, the report and `status` have all of these parts in one place each, and not `other`.
fn named_everywhere(cluster: &Cluster, parts: &[String], other: &str) {
    let assert_named = |place: &str, told: &str| {
        for part in parts {
            assert!(told.contains(part), "{place}: {part}: {told}");
        }
        assert!(!told.contains(other), "{place}: {told}");
    };
    let (outcome, detail) = check(&cluster.lab, CHECK);
    assert_eq!(outcome, "warning", "{detail}");
    assert_named("doctor", &detail);

    cluster.serve("web", &service("web", &["10.96.0.10"])).expect("manifests");
    let agent = Agent::reading(&cluster.lab).started(&cluster.lab).expect("an agent");
    let report = agent.report().expect("a report");
    let told = report.problems.iter().map(|problem| problem.message.as_str()).collect::<Vec<_>>();
    assert_named("the report", &told.join("; "));
    assert_named("status", &status(&cluster.lab));
    let log = fs::read_to_string(cluster.lab.log_file()).expect("the log");
    assert_named("the log", &log);
    let place = |text: &str| log.find(text).unwrap_or_else(|| panic!("{text}: {log}"));
    assert!(place(&parts[0]) < place("in sync"), "named only after the programs were attached: {log}");
}
