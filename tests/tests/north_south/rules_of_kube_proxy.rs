//! `sidestep takeover` and the way back: rules and programs go, and none of the connections that they translated breaks.

use std::{net::SocketAddr, time::Duration};

use sidestep_tests::{
    TwoNodes,
    cluster::HTTP_PORT,
    eventually, in_both_extremes, in_every_variant,
    kube_proxy::{Flavour, load},
    netfilter,
    place::Place,
    pressure::Pressure,
    snmp,
};

use crate::talks::{
    Exchange, Ledger, Talk, assert_go_on, begin, client_pod, close, cluster_ips, exchange, load_balancer_ips,
    node_ports, publish, records, remember_datagrams, ruleset, serve, told, udp_node_ports,
};

in_every_variant!(kube_proxy_that_still_runs_is_named);

in_both_extremes!(
    kube_proxys_nftables_go,
    kube_proxys_iptables_go,
    the_way_back_to_nftables,
    the_way_back_to_iptables,
);

/// A chain of a CNI plugin's that has kube-proxy masquerade packets.
const OF_CNI: &str = "*nat
:CNI-HOSTPORT-SETMARK - [0:0]
-A CNI-HOSTPORT-SETMARK -j KUBE-MARK-MASQ
COMMIT
";

/// Requests on each connection.
const QUESTIONS: usize = 3;
/// Connections to each of four addresses: two hundred to each kind of frontend, with the endpoint here and there, in both
/// families; and so many exchanges of datagrams.
const EACH: usize = 50;
/// What a new connection or exchange may take.
const LONGEST: Duration = Duration::from_secs(1);
/// The pause after each request of the clients that connect all the time.
const PAUSE: Duration = Duration::from_millis(5);

/// Chains of kubelet's, and a rule of a person's.
const OF_OTHERS: &str = "*filter
:KUBE-FIREWALL - [0:0]
:KUBE-KUBELET-CANARY - [0:0]
-A OUTPUT -j KUBE-FIREWALL
-A KUBE-FIREWALL -s 198.51.100.98 -j DROP
COMMIT
*nat
:KUBE-KUBELET-CANARY - [0:0]
-A PREROUTING -d 198.51.100.99 -p tcp --dport 1 -j DNAT --to-destination 192.0.2.10:1
COMMIT
";

/// ST-11.
fn kube_proxys_nftables_go(nodes: &TwoNodes) {
    go(nodes, Flavour::Nftables);
}

/// ST-11.
fn kube_proxys_iptables_go(nodes: &TwoNodes) {
    go(nodes, Flavour::Iptables);
}

fn go(nodes: &TwoNodes, flavour: Flavour) {
    let _servers = serve(nodes, flavour);
    netfilter::restore(nodes.node(), "iptables-restore", OF_OTHERS).expect("rules");
    remember_datagrams(nodes.node());
    let pod = client_pod(nodes);
    // A datagram from a port that kube-proxy's conntrack knows is one of that exchange, which then does not end.
    use_ports(nodes.outside(), "20000 24999");
    let (mut old, mut datagrams) = long_lived(nodes, &pod);
    use_ports(nodes.outside(), "25000 29999");
    let mut ledger = Ledger::default();
    let clients = all_the_time(nodes, &pod);
    let_pass(&clients);
    let _agent = nodes.lab().agent().expect("an agent");
    use_ports(nodes.outside(), "30000 60999");
    let_pass(&clients);
    ledger.go_on(&mut old, QUESTIONS, "the agent has started");
    ledger.go_on(&mut datagrams, QUESTIONS, "the agent has started");

    let shown = takeover(nodes, &["--dry-run"]);
    assert!(shown.contains("connections of kube-proxy's: TCP 800, UDP "), "{shown}");
    let same = "compared 24 frontends of 4 Service ports: 0 differences matter, 0 do not";
    assert!(shown.contains(same), "{shown}");
    assert!(decides(&ruleset(nodes.node())), "a dry run removes nothing");

    let told = std::thread::scope(|scope| {
        let command = scope.spawn(|| takeover(nodes, &["--wait", "90s"]));
        eventually("the rules that decide go", || !decides(&ruleset(nodes.node())));
        let rules = ruleset(nodes.node());
        assert!(rules.contains("sidestep-takeover"), "NAT is not held: {rules}");
        assert_eq!(rules.contains("jump KUBE-FORWARD"), flavour == Flavour::Iptables, "{rules}");
        let_pass(&clients);
        ledger.go_on(&mut old, QUESTIONS, "the rules are gone");
        ledger.go_on(&mut datagrams, QUESTIONS, "the rules are gone");
        assert!(!command.is_finished(), "it waits for connections");
        ledger.close("takeover", old.len() + datagrams.len());
        close(old);
        drop(datagrams);
        command.join().expect("it ends")
    });
    assert!(told.ends_with("done: nothing of kube-proxy's is left\n"), "{told}");
    let rules = ruleset(nodes.node());
    for gone in ["KUBE-FORWARD", "KUBE-SERVICES", "KUBE-PROXY-CANARY", "KUBE-SEP", "kube-proxy", "takeover"] {
        assert!(!rules.contains(gone), "{gone} is left: {rules}");
    }
    for kept in ["KUBE-FIREWALL", "KUBE-KUBELET-CANARY", "198.51.100.98", "198.51.100.99"] {
        assert!(rules.contains(kept), "{kept} is gone: {rules}");
    }
    let_pass(&clients);
    end(clients);
    for place in [nodes.outside(), &pod, nodes.node()] {
        assert_eq!(
            snmp::counter(place, "TcpExt.TCPSynRetrans").expect("a counter"),
            0,
            "SYNs of {}",
            place.name()
        );
    }
    assert!(takeover(nodes, &[]).contains("kube-proxy has no rules here"));
}

/// What is left when the wait is over stays, with what it needs; so do chains that others use.
///
/// ST-11.
fn kube_proxy_that_still_runs_is_named(nodes: &TwoNodes) {
    let _servers = serve(nodes, Flavour::Iptables);
    netfilter::restore(nodes.node(), "iptables-restore", OF_CNI).expect("rules");
    let refused = nodes.lab().sidestep(&["takeover"]).expect("it runs");
    let error = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && error.contains("no agent runs here"), "{error}");

    let mut old = begin(nodes.outside(), &node_ports(nodes), 5);
    let _agent = nodes.lab().agent().expect("an agent");
    let told = leaves_some(nodes, &["takeover", "--wait", "1s"]);
    assert!(told.contains("still there: TCP 20; what they need stays"), "{told}");
    assert_go_on(&mut old, QUESTIONS, "the command has ended");
    let rules = ruleset(nodes.node());
    assert!(rules.contains("sidestep-takeover") && rules.contains("jump KUBE-FORWARD"), "{rules}");

    std::thread::scope(|scope| {
        let command = scope.spawn(|| nodes.lab().sidestep(&["takeover", "--wait", "30s"]).expect("it runs"));
        std::thread::sleep(Duration::from_secs(1));
        load(nodes.node(), Flavour::Iptables, &[]).expect("rules");
        let output = command.join().expect("it ends");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.contains("it still runs"), "{error}");
    });
    assert_go_on(&mut old, QUESTIONS, "the command has failed");
    let told = takeover(nodes, &["--wait", "0s", "--break-the-rest"]);
    assert!(told.ends_with("done: nothing of kube-proxy's is left\n"), "{told}");
    assert!(
        told.contains("rules of others jump to KUBE-MARK-MASQ, KUBE-POSTROUTING: these chains stay"),
        "{told}"
    );
    let rules = ruleset(nodes.node());
    assert!(!rules.contains("KUBE-SERVICES") && !rules.contains("takeover"), "{rules}");
    assert!(rules.contains("jump KUBE-MARK-MASQ") && rules.contains("jump KUBE-POSTROUTING"), "{rules}");
}

/// ST-11.
fn the_way_back_to_nftables(nodes: &TwoNodes) {
    go_back(nodes, Flavour::Nftables);
}

/// ST-11.
fn the_way_back_to_iptables(nodes: &TwoNodes) {
    go_back(nodes, Flavour::Iptables);
}

/// Connections of Sidestep's time go on while kube-proxy serves new ones and after the programs are gone.
fn go_back(nodes: &TwoNodes, flavour: Flavour) {
    let (_servers, rules) = publish(nodes);
    // As on nodes with a CNI plugin: else netfilter does not know the ports of sockets that are older than its rules.
    netfilter::track(nodes.node()).expect("rules");
    let pod = client_pod(nodes);
    let mut agent = nodes.lab().agent().expect("an agent");
    let mut from_outside = begin(nodes.outside(), &node_ports(nodes), EACH);
    let mut datagrams = exchange(nodes.outside(), &udp_node_ports(nodes), EACH);
    from_outside.extend(begin(nodes.outside(), &load_balancer_ips(80), EACH));
    datagrams.extend(exchange(nodes.outside(), &load_balancer_ips(53), EACH));
    let mut east_west = begin(&pod, &cluster_ips(80), EACH);
    east_west.extend(begin(nodes.node(), &cluster_ips(80), EACH));
    let mut sockets = exchange(&pod, &cluster_ips(53), EACH);
    sockets.extend(exchange(nodes.node(), &cluster_ips(53), EACH));
    let of = from_outside.len() + datagrams.len() + east_west.len() + sockets.len();
    assert_eq!(of, 1600);
    let mut ledger = Ledger::default();
    let clients = all_the_time(nodes, &pod);
    let_pass(&clients);
    agent.stop().expect("it stops");
    let refused = nodes.lab().sidestep(&["cleanup", "--drain"]).expect("it runs");
    let error = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && error.contains("kube-proxy has no rules here"), "{error}");

    load(nodes.node(), flavour, &rules).expect("rules");
    let said = leaves_some(nodes, &["cleanup", "--drain", "--wait", "1s"]);
    assert!(said.contains("still there: TCP 4") && said.contains(", UDP "), "{said}");
    let sources = sources(nodes);
    assert_eq!(held(nodes.node(), &sources, false), [], "netfilter may give them away");
    let before = records(nodes);
    let_pass(&clients);
    let mut of_kube_proxy = begin(nodes.outside(), &node_ports(nodes), 2);
    assert!(records(nodes).is_subset(&before), "new connections are kube-proxy's");
    let all = from_outside.iter_mut().chain(&mut east_west).chain(&mut of_kube_proxy);
    ledger.go_on(all, QUESTIONS, "kube-proxy serves");
    ledger.go_on(datagrams.iter_mut().chain(&mut sockets), QUESTIONS, "kube-proxy serves");
    close(from_outside);
    drop(datagrams);
    // What is left are exchanges of datagrams, which count as long as another datagram may follow.
    let said = sidestep(nodes, &["cleanup", "--drain", "--wait", "2s", "--break-the-rest"]);
    assert!(said.contains("links/connect4"), "{said}");
    // A few may be those of kube-proxy's new connections now.
    let still = held(nodes.node(), &sources, true);
    assert!(still.len() < sources.len() / 2, "entries are left: {still:?}");
    let all = east_west.iter_mut().chain(&mut of_kube_proxy);
    ledger.go_on(all, QUESTIONS, "the programs are gone");
    let_pass(&clients);
    ledger.close("the way back", of);
    end(clients);
}

/// From which ports a place connects from now on.
fn use_ports(place: &Place, range: &str) {
    let file = "/proc/sys/net/ipv4/ip_local_port_range";
    place.run(|| std::fs::write(file, range)).expect("the client's ports");
}

/// Two hundred connections and as many exchanges each: from outside to NodePorts and LoadBalancer IPs, from a pod and from
/// the node to ClusterIPs.
fn long_lived(nodes: &TwoNodes, pod: &Place) -> (Vec<Talk>, Vec<Exchange>) {
    let (outside, node) = (nodes.outside(), nodes.node());
    let of = |port, node_ports| {
        let (outside_ips, inside_ips) = (load_balancer_ips(port), cluster_ips(port));
        [(outside, node_ports), (outside, outside_ips), (pod, inside_ips), (node, inside_ips)]
    };
    let talks = of(80, node_ports(nodes)).map(|(place, frontends)| begin(place, &frontends, EACH));
    let exchanges = of(53, udp_node_ports(nodes)).map(|(place, frontends)| exchange(place, &frontends, EACH));
    assert!(talks.iter().all(|all| all.len() == 200) && exchanges.iter().all(|all| all.len() == 200));
    (talks.into_iter().flatten().collect(), exchanges.into_iter().flatten().collect())
}

/// Ends the clients; none of their requests has failed, or taken a second.
fn end(clients: [Pressure; 4]) {
    let (mut requests, mut longest) = (0, Duration::ZERO);
    for client in clients {
        let outcome = client.stop();
        outcome.assert_flawless();
        requests += outcome.requests;
        longest = longest.max(outcome.longest);
    }
    println!("{requests} new connections and exchanges: failed 0, the longest {longest:?}");
    assert!(longest < LONGEST, "a new one took {longest:?}");
}

/// Clients outside the node, in a pod and on the node, which connect to either endpoint in both families.
fn all_the_time(nodes: &TwoNodes, pod: &Place) -> [Pressure; 4] {
    [
        Pressure::paced(nodes.outside(), node_ports(nodes)[0], load_balancer_ips(53)[1], PAUSE),
        Pressure::paced(nodes.outside(), load_balancer_ips(80)[3], load_balancer_ips(53)[2], PAUSE),
        Pressure::paced(pod, cluster_ips(80)[0], cluster_ips(53)[3], PAUSE),
        Pressure::paced(nodes.node(), cluster_ips(80)[3], cluster_ips(53)[0], PAUSE),
    ]
}

/// Waits until each has made some more requests.
fn let_pass(clients: &[Pressure]) {
    for client in clients {
        client.let_pass(20);
    }
}

fn takeover(nodes: &TwoNodes, arguments: &[&str]) -> String {
    sidestep(nodes, &[&["takeover"], arguments].concat())
}

/// Runs the command, which succeeds; returns what it prints.
fn sidestep(nodes: &TwoNodes, arguments: &[&str]) -> String {
    ends_with(nodes, arguments, 0)
}

/// The same, while connections are left.
fn leaves_some(nodes: &TwoNodes, arguments: &[&str]) -> String {
    ends_with(nodes, arguments, 2)
}

fn ends_with(nodes: &TwoNodes, arguments: &[&str], status: i32) -> String {
    let output = nodes.lab().sidestep(arguments).expect("it runs");
    assert_eq!(output.status.code(), Some(status), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The sources of masqueraded TCP connections that are established.
fn sources(nodes: &TwoNodes) -> Vec<SocketAddr> {
    let flows = told(nodes, &["flows", "-o", "json"]);
    let flows = flows.as_array().expect("a list").iter();
    let live = flows.filter(|flow| flow["state"] == "established" && flow["protocol"] == "TCP");
    let sources = live.filter_map(|flow| flow["source"].as_str());
    let sources: Vec<SocketAddr> = sources.map(|source| source.parse().expect("an address")).collect();
    assert!(sources.len() >= 20, "{sources:?}");
    sources
}

/// Those of these that conntrack gives to no other connection to an endpoint, or that it may give.
fn held(node: &Place, sources: &[SocketAddr], is_held: bool) -> Vec<SocketAddr> {
    let tracked = netfilter::tracked(node).expect("conntrack");
    let has = |source: &SocketAddr| {
        let (from, to) = (format!("src={} ", source.ip()), format!("dst={} ", source.ip()));
        tracked.iter().any(|entry| {
            let asks = entry.line.contains(&from) && entry.ports.starts_with(&[source.port(), HTTP_PORT]);
            let is_answered = entry.line.contains(&to) && entry.ports.ends_with(&[HTTP_PORT, source.port()]);
            asks || is_answered
        })
    };
    sources.iter().copied().filter(|source| has(source) == is_held).collect()
}

/// Whether rules of kube-proxy's decide where connections go.
fn decides(rules: &str) -> bool {
    rules.contains("KUBE-SERVICES") || rules.contains("kube-proxy")
}
