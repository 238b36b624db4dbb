//! What is left of kube-proxy's time: conntrack entries whose answers have the same ends as those of a socket's new
//! connection, and packets that no rule accepts but kube-proxy's. And how a drain ends.

use std::{
    net::{SocketAddr, TcpListener},
    ops::Range,
    time::Duration,
};

use sidestep_tests::{
    TwoNodes, eventually, in_both_extremes, in_variant,
    kube_proxy::{Flavour, load},
    netfilter,
    traffic::connect_bound,
};

use crate::talks::{
    Talk, assert_go_on, begin, client_pod, close, cluster_ips, load_balancer_ips, node_ports, publish,
    records, ruleset, serve,
};

in_both_extremes!(
    client_ports_of_kube_proxys_connections_are_used_again,
    a_drain_ends_with_the_last_connection,
    what_is_not_taken_over_is_named
);

/// Only without rules that accept the pods' ranges.
mod connections_that_only_kube_proxy_accepts_go_on {
    super::in_variant!(connections_that_only_kube_proxy_accepts_go_on, direct, DIRECT);
}

/// Requests on each connection.
const QUESTIONS: usize = 3;
/// The client's ports of connections that are over before the takeover, and of those that end while it waits.
const OVER: Range<u16> = 50_000..50_010;
const LIVE: Range<u16> = 50_010..50_015;

/// kube-proxy's connection leaves the node as one from the client to the endpoint, and so does a new one of a socket that
/// uses the port again: conntrack can have either, and drops the first packet of the other.
///
/// ST-11.
fn client_ports_of_kube_proxys_connections_are_used_again(nodes: &TwoNodes) {
    let _servers = serve(nodes, Flavour::Nftables);
    // As on nodes with a CNI plugin, whose rules keep conntrack on when kube-proxy's are gone.
    netfilter::track(nodes.node()).expect("rules");
    // As by default: kube-proxy does not masquerade what the node itself sends to a ClusterIP.
    for family in ["ip", "ip6"] {
        netfilter::nft(nodes.node(), &format!("flush chain {family} kube-proxy masquerading\n"))
            .expect("rules");
    }
    let _pod = client_pod(nodes);
    // From a port of one of its addresses in each family, to the endpoint here and there.
    let from = |port: u16, when: &str| -> Vec<Talk> {
        let each = cluster_ips(80).into_iter().zip(nodes.node().addresses().into_iter().cycle());
        let talk = |(frontend, ip)| {
            let talk = || Talk::over(connect_bound(SocketAddr::new(ip, port), frontend)?, frontend);
            nodes.node().run(talk).unwrap_or_else(|error| panic!("{when}: {port} to {frontend}: {error}"))
        };
        each.map(talk).collect()
    };
    OVER.for_each(|port| close(from(port, "with kube-proxy")));
    let mut live: Vec<Talk> = LIVE.flat_map(|port| from(port, "with kube-proxy")).collect();
    let _agent = nodes.lab().agent().expect("an agent");
    let again = |when: &str| OVER.chain(LIVE).for_each(|port| close(from(port, when)));
    again("the agent has started");
    std::thread::scope(|scope| {
        let command = scope.spawn(|| nodes.lab().sidestep(&["takeover", "--wait", "60s"]).expect("it runs"));
        eventually("the rules that decide go", || !ruleset(nodes.node()).contains("kube-proxy"));
        again("the rules that decide are gone");
        assert_go_on(&mut live, QUESTIONS, "the rules that decide are gone");
        close(std::mem::take(&mut live));
        let output = command.join().expect("it ends");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    });
    // Nothing is left that would give a clash another port: netfilter's NAT is off.
    assert!(!ruleset(nodes.node()).contains("sidestep-takeover"));
    again("the takeover is over");
}

/// Where FORWARD's policy is DROP, packets pass by KUBE-FORWARD alone.
///
/// ST-11.
fn connections_that_only_kube_proxy_accepts_go_on(nodes: &TwoNodes) {
    let _servers = serve(nodes, Flavour::Iptables);
    for program in ["iptables-restore", "ip6tables-restore"] {
        netfilter::restore(nodes.node(), program, "*filter\n:FORWARD DROP [0:0]\nCOMMIT\n").expect("rules");
    }
    let frontends = [node_ports(nodes), load_balancer_ips(80)].concat();
    let mut old = begin(nodes.outside(), &frontends, 5);
    let _agent = nodes.lab().agent().expect("an agent");
    std::thread::scope(|scope| {
        let command = scope.spawn(|| nodes.lab().sidestep(&["takeover", "--wait", "60s"]).expect("it runs"));
        eventually("the rules that decide go", || !ruleset(nodes.node()).contains("KUBE-SERVICES"));
        assert_go_on(&mut old, QUESTIONS, "the rules that decide are gone");
        assert!(ruleset(nodes.node()).contains("KUBE-FORWARD"));
        close(std::mem::take(&mut old));
        assert!(command.join().expect("it ends").status.success());
    });
    assert!(!ruleset(nodes.node()).contains("KUBE-FORWARD"));
    let refused = nodes.outside().run(|| Talk::begin(frontends[0]).err());
    assert!(refused.is_some(), "nothing else accepts these packets");
}

/// Nobody says `--break-the-rest`.
///
/// ST-11.
fn a_drain_ends_with_the_last_connection(nodes: &TwoNodes) {
    let (_servers, rules) = publish(nodes);
    netfilter::track(nodes.node()).expect("rules");
    let mut agent = nodes.lab().agent().expect("an agent");
    let mut old = begin(nodes.outside(), &node_ports(nodes), 5);
    assert_eq!(records(nodes).len(), old.len());
    agent.stop().expect("it stops");
    load(nodes.node(), Flavour::Nftables, &rules).expect("rules");
    let output = std::thread::scope(|scope| {
        let drain = ["cleanup", "--drain", "--wait", "60s"];
        let command = scope.spawn(move || nodes.lab().sidestep(&drain).expect("it runs"));
        std::thread::sleep(Duration::from_secs(2));
        assert_go_on(&mut old, QUESTIONS, "kube-proxy serves");
        assert!(!command.is_finished(), "it waits for connections");
        close(std::mem::take(&mut old));
        command.join().expect("it ends")
    });
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("waiting for"), "{said}");
    let doctor = nodes.lab().sidestep(&["status"]).expect("it runs");
    assert!(!doctor.status.success(), "the tables are gone: {}", String::from_utf8_lossy(&doctor.stdout));
    close(begin(nodes.outside(), &node_ports(nodes), 2));
}

/// Mode ipvs, and what listens where kube-proxy does.
///
/// ST-11.
fn what_is_not_taken_over_is_named(nodes: &TwoNodes) {
    let _servers = serve(nodes, Flavour::Nftables);
    let listener = nodes.node().run(|| TcpListener::bind("127.0.0.1:10249")).expect("a listener");
    let _agent = nodes.lab().agent().expect("an agent");
    let output = nodes.lab().sidestep(&["takeover", "--wait", "1s"]).expect("it runs");
    let error = String::from_utf8_lossy(&output.stderr);
    let named = format!("process {} (", std::process::id());
    assert!(
        error.contains(&named) && error.contains("which listens on port 10249, as kube-proxy does"),
        "{error}"
    );
    drop(listener);

    nodes.node().namespace().ip_batch("link add kube-ipvs0 type bridge\n").expect("a device");
    for arguments in [&["takeover"][..], &["takeover", "--compare"]] {
        let output = nodes.lab().sidestep(arguments).expect("it runs");
        let error = String::from_utf8_lossy(&output.stderr);
        let named = error.contains("kube-ipvs0") && error.contains("ipvsadm --clear");
        assert!(output.status.code() == Some(1) && named, "{error}");
    }
}
