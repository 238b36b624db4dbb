//! On a node with connection tracking, conntrack keeps no entry of a finished connection, whichever of its packets took
//! the fast path.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use sidestep_tests::{
    Place, TwoNodes,
    cluster::{Backend, HTTP_PORT},
    in_both_extremes, in_every_variant,
    netfilter::{Tracked, forget_soon, track, tracked},
    sockets::set_bytes,
    traffic::{Conversation, EchoServer, PATIENCE, connect, echo_through},
    two_nodes::{HTTP_NODE_PORT, Routing, Rules, WayIn, node_ports, web},
};
use socket2::{Domain, Socket, Type};

use crate::serve;

in_every_variant!(connections_that_end_are_forgotten, connections_over_a_small_mtu_are_forgotten);

// Conntrack entries need their timeouts.
in_both_extremes!(
    connections_with_options_are_forgotten,
    connections_without_neighbour_entries_are_forgotten,
    connections_whose_routes_change_are_forgotten,
    connections_across_restarts_are_forgotten,
    connections_that_outlive_their_conntrack_entry_are_forgotten,
);

/// Conntrack's timeout of a connection that is not established, in seconds.
const HALF_OPEN: u32 = 3;
/// How long the agent may take to delete the entry of a finished connection.
const SOON: Duration = Duration::from_secs(3);
/// Connections to each NodePort and endpoint in scenarios that disturb them.
const SOME: usize = 20;

/// A node that tracks connections, and an endpoint on each node.
fn servers(nodes: &TwoNodes) -> [Backend; 2] {
    track(nodes.node()).expect("a rule");
    forget_soon(nodes.node(), HALF_OPEN).expect("sysctls");
    [nodes.backend_here("here").expect("a pod"), nodes.backend_there("there").expect("a pod")]
}

/// The node's conntrack entries of the Service's connections.
fn ours(nodes: &TwoNodes) -> Vec<Tracked> {
    let mut found = tracked(nodes.node()).expect("conntrack");
    found.retain(|one| one.has_port(HTTP_PORT) || one.has_port(HTTP_NODE_PORT));
    found
}

/// ST-12: all connections have finished. No entry is in state ESTABLISHED, and soon there is none at all.
fn assert_forgotten(nodes: &TwoNodes) {
    wait_until_none(nodes, SOON, Tracked::is_established);
    wait_until_none(nodes, Duration::from_secs(2 * u64::from(HALF_OPEN)), |_| true);
}

fn wait_until_none(nodes: &TwoNodes, limit: Duration, is_wrong: impl Fn(&Tracked) -> bool) {
    let start = Instant::now();
    loop {
        let wrong: Vec<Tracked> = ours(nodes).into_iter().filter(|one| is_wrong(one)).collect();
        if wrong.is_empty() {
            return;
        }
        let lines: Vec<&str> = wrong.iter().take(5).map(|one| one.line.as_str()).collect();
        assert!(start.elapsed() < limit, "{} entries after {limit:?}: {lines:#?}", wrong.len());
        std::thread::sleep(Duration::from_millis(300));
    }
}

/// Opens connections to each NodePort, and sends `questions` requests on each.
fn begin(nodes: &TwoNodes, each: usize, questions: usize) -> Vec<Conversation> {
    let mut talks: Vec<Conversation> = nodes.outside().run(|| {
        let ways = node_ports().into_iter().flat_map(|way| std::iter::repeat_n(way, each));
        ways.map(|way| Conversation::with(way.tcp).unwrap_or_else(|error| panic!("{way:?}: {error}")))
            .collect()
    });
    go_on(&mut talks, questions, "at first");
    talks
}

fn go_on(talks: &mut [Conversation], questions: usize, when: &str) {
    for (number, talk) in talks.iter_mut().enumerate() {
        for question in 0..questions {
            talk.ask()
                .unwrap_or_else(|error| panic!("{when}: connection {number}, question {question}: {error}"));
        }
    }
}

/// ST-12: a few hundred connections, closed as most clients do.
fn connections_that_end_are_forgotten(nodes: &TwoNodes) {
    for server in &servers(nodes) {
        let _agent = serve(nodes, &[server]);
        for questions in [0, 1, 2, 5] {
            drop(begin(nodes, 25, questions));
        }
        assert_forgotten(nodes);
    }
}

/// ST-12: packets longer than the path MTU go through the stack, which sends the ICMP error.
fn connections_over_a_small_mtu_are_forgotten(nodes: &TwoNodes) {
    if nodes.variant().rules == Rules::Flannel && nodes.variant().routing == Routing::Direct {
        // A CNI's rules forward only packets from pods, and so not the other node's ICMP error.
        return;
    }
    track(nodes.node()).expect("a rule");
    forget_soon(nodes.node(), HALF_OPEN).expect("sysctls");
    let there = nodes.pod_there("there").expect("a pod");
    narrow(nodes.other_node(), &there, "dev pods");
    // The way back has a small MTU, too.
    narrow(nodes.node(), nodes.outside(), "dev uplink");
    let _server = EchoServer::start(&there, HTTP_PORT).expect("a server");
    nodes.publish_places("web", &web(), &[&there]).expect("manifests");
    let _agent = nodes.lab().agent().expect("an agent");
    for WayIn { tcp, .. } in node_ports() {
        for _ in 0..SOME {
            let echoed = nodes.outside().run(|| echo_through(tcp, 64 << 10));
            echoed.unwrap_or_else(|error| panic!("{tcp}: {error}"));
        }
    }
    // The stack has sent ICMP errors, and the agent deletes the conntrack entries that this left.
    wait_until_none(nodes, Duration::from_secs(25), |_| true);
}

fn narrow(at: &Place, to: &Place, way: &str) {
    for address in to.addresses() {
        let prefix = if address.is_ipv4() { 32 } else { 128 };
        let route = format!("route add {address}/{prefix} {way} mtu 1300\n");
        at.namespace().ip_batch(&route).expect("a route");
    }
}

/// ST-12: every packet of the client has IPv4 options or IPv6 extension headers, which only the stack forwards.
fn connections_with_options_are_forgotten(nodes: &TwoNodes) {
    for server in &servers(nodes) {
        let _agent = serve(nodes, &[server]);
        for way in node_ports() {
            let mut talks: Vec<Conversation> = nodes.outside().run(|| {
                let all = (0..SOME)
                    .map(|_| with_options(way.tcp).unwrap_or_else(|error| panic!("{way:?}: {error}")));
                all.collect()
            });
            go_on(&mut talks, 3, "with options");
        }
        assert_forgotten(nodes);
    }
}

fn with_options(address: SocketAddr) -> io::Result<Conversation> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv4() {
        set_bytes(&socket, libc::IPPROTO_IP, libc::IP_OPTIONS, &[1, 1, 1, 1])?;
    } else {
        set_bytes(&socket, libc::IPPROTO_IPV6, libc::IPV6_DSTOPTS, &[0, 0, 1, 4, 0, 0, 0, 0])?;
    }
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.connect(&address.into())?;
    Conversation::over(socket.into())
}

/// ST-12: neighbour entries of both directions are flushed repeatedly in the middle of connections.
fn connections_without_neighbour_entries_are_forgotten(nodes: &TwoNodes) {
    for server in &servers(nodes) {
        let _agent = serve(nodes, &[server]);
        let mut talks = begin(nodes, SOME, 3);
        for round in 0..3 {
            nodes.node().namespace().ip_batch("neigh flush dev uplink\n").expect("flushed");
            go_on(&mut talks, 1, &format!("after flush {round}"));
            // Every request meets an empty neighbour table, not only the first one after a flush.
            for talk in &mut talks[..SOME / 2] {
                nodes.node().namespace().ip_batch("neigh flush dev uplink\n").expect("flushed");
                talk.ask().expect("an answer");
            }
        }
        // Connections close with an empty neighbour table, too.
        nodes.node().namespace().ip_batch("neigh flush dev uplink\n").expect("flushed");
        drop(talks);
        assert_forgotten(nodes);
    }
}

/// ST-12: the route to the other node's pods changes and changes back in the middle of connections.
fn connections_whose_routes_change_are_forgotten(nodes: &TwoNodes) {
    let servers = servers(nodes);
    let more = "addr add 192.0.2.12/24 dev uplink\naddr add 2001:db8:192::12/64 dev uplink nodad\n";
    nodes.other_node().namespace().ip_batch(more).expect("addresses");
    let ways = match nodes.variant().routing {
        Routing::Direct => {
            [["via 192.0.2.12", "via 2001:db8:192::12"], ["via 192.0.2.11", "via 2001:db8:192::11"]]
        }
        Routing::Vxlan => [
            [
                "via 10.244.2.0 dev flannel.1 onlink mtu 1400",
                "via fd00:10:244:2:: dev flannel.1 onlink mtu 1400",
            ],
            ["via 10.244.2.0 dev flannel.1 onlink", "via fd00:10:244:2:: dev flannel.1 onlink"],
        ],
    };
    for server in &servers {
        let _agent = serve(nodes, &[server]);
        let mut talks = begin(nodes, SOME, 3);
        for (round, [v4, v6]) in ways.into_iter().enumerate() {
            let routes = format!(
                "route replace 10.244.2.0/24 {v4}\nroute del fd00:10:244:2::/64\nroute add fd00:10:244:2::/64 {v6}\n"
            );
            nodes.node().namespace().ip_batch(&routes).expect("routes");
            go_on(&mut talks, 3, &format!("after change {round}"));
        }
        drop(talks);
        assert_forgotten(nodes);
    }
}

/// ST-12: the agent is killed, stopped and restarted in the middle of connections, some of which end while no agent
/// runs.
fn connections_across_restarts_are_forgotten(nodes: &TwoNodes) {
    for server in &servers(nodes) {
        let mut agent = serve(nodes, &[server]);
        let mut talks = begin(nodes, SOME, 3);
        agent.kill().expect("kill -9");
        go_on(&mut talks, 1, "without an agent");
        talks.truncate(SOME);
        agent.restart(nodes.lab()).expect("restart");
        go_on(&mut talks, 1, "with the next agent");
        assert!(agent.stop().expect("it stops").success());
        talks.truncate(SOME / 2);
        agent.restart(nodes.lab()).expect("restart");
        go_on(&mut talks, 1, "with the last agent");
        drop(talks);
        assert_forgotten(nodes);
    }
}

/// ST-12: the conntrack entry of a fast-path connection expires before the connection ends, and no later packet through
/// the stack, above all its FIN, makes a new one.
fn connections_that_outlive_their_conntrack_entry_are_forgotten(nodes: &TwoNodes) {
    for server in &servers(nodes) {
        let _agent = serve(nodes, &[server]);
        let mut talks = begin(nodes, SOME, 3);
        std::thread::sleep(Duration::from_secs(u64::from(HALF_OPEN) + 2));
        go_on(&mut talks, 2, "later");
        nodes.node().namespace().ip_batch("neigh flush dev uplink\n").expect("flushed");
        go_on(&mut talks, 2, "later, without a neighbour");
        let [v4, _] = node_ports();
        drop(nodes.outside().run(|| connect(v4.tcp)).expect("a connection"));
        drop(talks);
        assert_forgotten(nodes);
    }
}
