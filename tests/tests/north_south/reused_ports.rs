//! Clients that reuse source ports after other clients have filled FLOWS.

use std::{
    fs, io,
    net::{IpAddr, SocketAddr},
    ops::Range,
    time::Duration,
};

use sidestep_tests::{
    Agent, TwoNodes,
    cluster::Backend,
    in_every_variant,
    traffic::{Answer, Asker, Conversation, connect_bound},
    two_nodes::{WayIn, node_ports, web},
    wiretap::Wiretap,
};

in_every_variant!(
    a_connection_from_a_port_that_was_used_before_begins_anew,
    a_datagram_from_a_port_that_was_used_before_begins_anew,
);

/// The capacity of FLOWS.
const ROOM: u32 = 1024;
/// The ports from which a client connects again and again.
const TCP_PORTS: Range<u16> = 33_000..33_150;
/// The ports from which a client sends UDP requests again and again. A confirmed record is not evicted, so they are few
/// in proportion to the table.
const UDP_PORTS: Range<u16> = 33_000..33_060;
/// How many connections other clients make in between, each from a port of its own and from another address: from too
/// few to fill the table up to enough to fill it more than once.
const OTHERS: [u16; 6] = [150, 280, 280, 550, 1100, 0];
/// Stop after this many failures, as each one costs seconds.
const ENOUGH: usize = 5;

type Visit = fn(SocketAddr, &WayIn) -> io::Result<Answer>;

/// ST-13: the connection does not hang, and the endpoint sees the node's address.
fn a_connection_from_a_port_that_was_used_before_begins_anew(nodes: &TwoNodes) {
    come_back(nodes, TCP_PORTS, |source, way| {
        let mut talk = Conversation::over(connect_bound(source, way.tcp)?)?;
        let answer = talk.ask()?;
        if source.port() % 2 == 0 {
            talk.close()?;
        } else {
            talk.abort()?;
        }
        Ok(answer)
    });
}

/// ST-13, over UDP.
fn a_datagram_from_a_port_that_was_used_before_begins_anew(nodes: &TwoNodes) {
    come_back(nodes, UDP_PORTS, |source, way| {
        let (answer, from) = Asker::bound_to(source)?.ask(way.udp)?;
        if from == way.udp { Ok(answer) } else { Err(io::Error::other(format!("{from} answered"))) }
    });
}

fn come_back(nodes: &TwoNodes, again: Range<u16>, visit: Visit) {
    let server = nodes.backend_there("there").expect("a pod");
    nodes.publish("web", &web(), &[&server]).expect("manifests");
    let agent = Agent::reading(nodes.lab()).arguments(["--max-flows".to_owned(), ROOM.to_string()]);
    let _agent = agent.started(nodes.lab()).expect("an agent");
    let more = "addr add 192.0.2.101/24 dev uplink\naddr add 2001:db8:192::101/64 dev uplink nodad\n";
    nodes.outside().namespace().ip_batch(more).expect("addresses");
    // Allow a client to reuse a port in TIME-WAIT after a second.
    let reuse = "/proc/sys/net/ipv4/tcp_tw_reuse";
    nodes.outside().run(|| fs::write(reuse, "1")).expect("a sysctl");
    let others: [IpAddr; 2] =
        ["192.0.2.101", "2001:db8:192::101"].map(|address| address.parse().expect("an address"));
    let clients = nodes.outside().addresses();
    let wire = Wiretap::on(&server.place, "eth0").expect("a wiretap");
    let mut failures = Vec::new();
    for ((way, client), other) in node_ports().iter().zip(clients).zip(others) {
        let mut next = 34_000;
        for (round, others) in OTHERS.into_iter().enumerate() {
            std::thread::sleep(Duration::from_millis(1100));
            for (source, ports) in [(client, again.clone()), (other, next..next + others)] {
                for port in ports {
                    let source = SocketAddr::new(source, port);
                    let answered = nodes.outside().run(|| visit(source, way));
                    let strays = strays(&wire, &server, &[client, other]);
                    match answered {
                        Ok(answer) if answer.client.ip() != source.ip() && strays.is_empty() => {}
                        answered => failures.push(format!(
                            "round {round}, {source} at {way:?}: {answered:?}, on the wire {strays:?}"
                        )),
                    }
                    assert!(failures.len() < ENOUGH, "{failures:#?}");
                }
            }
            next += others;
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

/// Packets that reached the endpoint with a client's address, not masqueraded.
fn strays(wire: &Wiretap, server: &Backend, clients: &[IpAddr]) -> Vec<String> {
    let here = server.place.addresses();
    let mut strays = Vec::new();
    for seen in wire.seen().expect("packets") {
        let is_request = here.contains(&seen.destination.ip());
        if is_request && clients.contains(&seen.source.ip()) {
            strays.push(format!("{} > {}", seen.source, seen.destination));
        }
    }
    strays
}
