//! UDP sockets of a pod and of the node that asked a Service before the agent started. Connected ones keep kube-proxy's
//! endpoint while conntrack knows their exchange, and are connected to the Service again when it does not.

use std::net::SocketAddr;

use sidestep_tests::{
    TwoNodes, eventually, in_both_extremes, kube_proxy::Flavour, netfilter, traffic::Asker,
};

use crate::talks::{Exchange, Ledger, client_pod, cluster_ips, exchange, forget_datagrams, serve};

in_both_extremes!(
    udp_sockets_outlive_the_takeover_from_mode_nftables,
    udp_sockets_outlive_the_takeover_from_mode_iptables,
);

/// Requests on each.
const QUESTIONS: usize = 3;

/// ST-5, ST-11.
fn udp_sockets_outlive_the_takeover_from_mode_nftables(nodes: &TwoNodes) {
    brought_over(nodes, Flavour::Nftables);
}

/// ST-5, ST-11.
fn udp_sockets_outlive_the_takeover_from_mode_iptables(nodes: &TwoNodes) {
    brought_over(nodes, Flavour::Iptables);
}

fn brought_over(nodes: &TwoNodes, flavour: Flavour) {
    let _servers = serve(nodes, flavour);
    let pod = client_pod(nodes);
    let frontends = cluster_ips(53);
    let places = [&pod, nodes.node()];
    let connected = || places.iter().flat_map(|place| exchange(place, &frontends, 1)).collect::<Vec<_>>();
    // Those that pause for longer than conntrack waits.
    let mut idle = connected();
    forget_datagrams(nodes.node());
    let mut busy = connected();
    let asker = |frontend: SocketAddr| (Asker::for_address(frontend).expect("a socket"), frontend);
    let unconnected = places.map(|place| place.run(|| frontends.map(asker)));
    let ask_unconnected = || unconnected.as_flattened().iter().for_each(ask);
    ask_unconnected();
    let _agent = nodes.lab().agent().expect("an agent");
    let mut ledger = Ledger::default();
    ledger.go_on(&mut busy, QUESTIONS, "the agent has started");

    let output = std::thread::scope(|scope| {
        let command = scope.spawn(|| nodes.lab().sidestep(&["takeover", "--wait", "60s"]).expect("it runs"));
        eventually("the rules that decide go", || {
            let output = nodes.lab().sidestep(&["takeover", "--compare"]).expect("it runs");
            String::from_utf8_lossy(&output.stdout).starts_with("compared 0 frontends")
        });
        ledger.go_on(&mut busy, QUESTIONS, "conntrack translates them");
        ask_unconnected();
        assert_answered(&mut idle, "connected again before the rules went");
        assert!(!command.is_finished(), "it waits");
        forget_datagrams(nodes.node());
        command.join().expect("it ends")
    });
    let said = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("connected 16 UDP sockets"), "{said}{error}");
    assert_answered(&mut busy, "connected again when conntrack had forgotten them");
    ask_unconnected();
    // Nobody asks netfilter for a Service any more.
    let tracked = netfilter::tracked(nodes.node()).expect("conntrack");
    let asks =
        |line: &str| frontends.iter().any(|frontend| line.contains(&format!("dst={} ", frontend.ip())));
    let asked: Vec<_> = tracked.iter().filter(|entry| asks(&entry.line)).collect();
    assert!(asked.is_empty(), "{asked:?}");
}

/// The endpoint may see another client: no longer a masqueraded one.
fn assert_answered(all: &mut [Exchange], when: &str) {
    for one in all {
        for _ in 0..QUESTIONS {
            if let Err(error) = one.ask_again() {
                panic!("{when}: {error}");
            }
        }
    }
}

fn ask((asker, frontend): &(Asker, SocketAddr)) {
    let (_, source) = asker.ask(*frontend).unwrap_or_else(|error| panic!("{frontend}: {error}"));
    assert_eq!(source, *frontend);
}
