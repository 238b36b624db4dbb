//! The agent starts beside kube-proxy's rules and connections: kube-proxy's rules keep translating their own
//! connections, and Sidestep translates new ones.

use std::net::SocketAddr;

use sidestep_tests::{
    Agent, TwoNodes, in_every_variant,
    kube_proxy::Flavour,
    netfilter,
    traffic::{Answer, Asker, connect_bound},
};

use crate::talks::{
    NODE_PORTS, Talk, assert_go_on, begin, load_balancer_ips, node_ports, records, serve, told,
};

in_every_variant!(
    connections_of_kube_proxys_nftables_outlive_the_takeover,
    connections_of_kube_proxys_iptables_outlive_the_takeover,
    source_ports_of_kube_proxys_connections_are_given_to_no_other,
    datagrams_of_kube_proxys_exchanges_are_left_to_it,
);

/// Connections to each NodePort in each family: two hundred in all.
const EACH: usize = 50;
/// Requests on each connection after the takeover.
const QUESTIONS: usize = 5;
/// New connections to each NodePort in each family.
const NEW: usize = 5;

/// ST-11, PO-23.
fn connections_of_kube_proxys_nftables_outlive_the_takeover(nodes: &TwoNodes) {
    take_over(nodes, Flavour::Nftables);
}

/// ST-11, PO-23.
fn connections_of_kube_proxys_iptables_outlive_the_takeover(nodes: &TwoNodes) {
    take_over(nodes, Flavour::Iptables);
}

fn take_over(nodes: &TwoNodes, flavour: Flavour) {
    let servers = serve(nodes, flavour);
    let frontends = node_ports(nodes);
    let mut old = begin(nodes.outside(), &frontends, EACH);
    assert_eq!(old.len(), 200);
    let _agent = nodes.lab().agent().expect("an agent");
    assert_go_on(&mut old, QUESTIONS, "the agent has started");

    let mut new = begin(nodes.outside(), &frontends, NEW);
    let records = records(nodes);
    for talk in &new {
        assert!(records.contains(&talk.ends()), "a new connection has no record: {:?}", talk.ends());
    }
    for talk in &old {
        assert!(
            !records.contains(&talk.ends()),
            "a connection of kube-proxy's has a record: {:?}",
            talk.ends()
        );
    }
    assert_go_on(old.iter_mut().chain(&mut new), QUESTIONS, "old and new connections");
    for server in &servers {
        let counted = connections(nodes, server.place.name());
        assert_eq!(counted, 2 * NEW as u64, "connections of {}", server.place.name());
    }
}

/// Three of eight ports of the range belong to connections of kube-proxy's to one endpoint: forty new ones to it avoid
/// them by chance once in a hundred million runs.
///
/// ST-11.
fn source_ports_of_kube_proxys_connections_are_given_to_no_other(nodes: &TwoNodes) {
    const RANGE: &str = "50000-50255";
    const OF_KUBE_PROXY: std::ops::Range<u16> = 50_000..50_096;
    let _servers = serve(nodes, Flavour::Nftables);
    // Older kernels and iptables know no other way: the client's port is kept where it is free.
    for family in ["ip", "ip6"] {
        let chain = format!("{family} kube-proxy masquerading");
        let rules = format!("flush chain {chain}\nadd rule {chain} mark and 0x4000 != 0 masquerade\n");
        netfilter::nft(nodes.node(), &rules).expect("rules");
    }
    let frontends = node_ports(nodes).into_iter().skip(2);
    for (frontend, ip) in frontends.zip(nodes.outside().addresses()) {
        let mut old: Vec<Talk> = nodes.outside().run(|| {
            let from = |port| connect_bound(SocketAddr::new(ip, port), frontend);
            OF_KUBE_PROXY
                .map(|port| Talk::over(from(port)?, frontend))
                .collect::<Result<_, _>>()
                .expect("connections")
        });
        let agent = Agent::reading(nodes.lab()).arguments(["--source-port-range", RANGE]);
        let mut agent = agent.started(nodes.lab()).expect("an agent");
        let mut new = begin(nodes.outside(), &[frontend], 40);
        assert_go_on(old.iter_mut().chain(&mut new), QUESTIONS, "old and new connections");
        agent.stop().expect("it stops");
        assert!(nodes.lab().sidestep(&["cleanup"]).expect("it runs").status.success());
    }
}

/// The endpoint sees the same client: the exchange has neither another endpoint nor another source port.
///
/// ST-11.
fn datagrams_of_kube_proxys_exchanges_are_left_to_it(nodes: &TwoNodes) {
    let _servers = serve(nodes, Flavour::Nftables);
    let node_ports = NODE_PORTS.map(|(_, udp)| nodes.at_node(udp));
    let frontends = [node_ports.as_flattened(), &load_balancer_ips(53)].concat();
    let ask = |asker: &Asker| nodes.outside().run(|| asker.ask_peer()).map(|(answer, _)| answer);
    let old: Vec<(Asker, Answer)> = frontends
        .iter()
        .map(|frontend| {
            let asker = nodes.outside().run(|| Asker::for_address(*frontend)).expect("a socket");
            asker.connect(*frontend).expect("connected");
            let answer = ask(&asker).unwrap_or_else(|error| panic!("{frontend}: {error}"));
            (asker, answer)
        })
        .collect();
    let _agent = nodes.lab().agent().expect("an agent");
    for _ in 0..QUESTIONS {
        for ((asker, answer), frontend) in old.iter().zip(&frontends) {
            assert_eq!(ask(asker).as_ref().ok(), Some(answer), "{frontend}");
        }
    }
    let of_ours = records(nodes);
    assert!(of_ours.is_empty(), "{of_ours:?}");
    // Others are ours.
    for frontend in &frontends {
        let asked = nodes.outside().run(|| Asker::for_address(*frontend)?.ask(*frontend));
        asked.unwrap_or_else(|error| panic!("{frontend}: {error}"));
    }
    assert_eq!(records(nodes).len(), frontends.len());
}

/// Connections of a Service that `sidestep status` has counted, in both families.
fn connections(nodes: &TwoNodes, service: &str) -> u64 {
    let status = told(nodes, &["status", "-o", "json"]);
    let services = status["services"].as_array().expect("a list").iter();
    let named = services
        .filter(|one| one["service"].as_str().is_some_and(|name| name.contains(&format!("/{service}:"))));
    named.filter_map(|one| one["connections"].as_u64()).sum()
}
