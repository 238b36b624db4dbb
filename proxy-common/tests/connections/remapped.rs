//! Connections of one client port to one endpoint, through several frontends. Between ingress and egress, and at an
//! endpoint on the node, they would be the same packets; so all but one have another port there, as with netfilter.

use std::collections::HashSet;

use proxy_common::{
    Endpoint,
    connection::{Begun, Ends},
    packet::Segment,
};

use crate::{
    memory::Memory,
    node::{ACK, Arrival, FIN, Fate, Node, SYN, Side, TCP, UDP, client, confirmed, frontend, serve},
};

const fn segment(protocol: u8, bits: u8) -> Segment {
    if protocol == TCP { Segment::tcp(bits) } else { Segment::DATAGRAM }
}

/// Connects, and confirms the connection.
fn connect(memory: &Memory, node: &Node, protocol: u8, (who, to): (Side, Side), far: Endpoint) -> Arrival {
    let say = |bits| node.send(memory, protocol, (who, to), segment(protocol, bits), || Some(far));
    let fate = say(SYN);
    let Fate::Arrives { source, endpoint } = fate else { panic!("{who:?} to {to:?}: {fate:?}") };
    let arrival = Arrival { protocol, client: who, frontend: to, source, endpoint };
    assert_eq!(node.answer(memory, &arrival, segment(protocol, SYN | ACK)), (who, to));
    assert_eq!(say(ACK), fate);
    assert!(confirmed(memory, protocol, who, to).is_some());
    arrival
}

/// As many connections as there are frontends, to an endpoint here and elsewhere; each has an own source at the
/// endpoint, answers come from the frontend that was asked, and one on this node sees the client's address.
#[test]
fn one_client_port_reaches_one_endpoint_through_many_frontends() {
    for protocol in [TCP, UDP] {
        for number in [1, 2] {
            for foreign in [false, true] {
                let memory = Memory::new(1);
                let [far] = serve(&memory, [number])[..] else { panic!("one endpoint") };
                let node = Node { foreign, ..Node::new(64) };
                let who = client(1, 2000);
                let arrivals: Vec<Arrival> =
                    (0..8).map(|to| connect(&memory, &node, protocol, (who, frontend(to)), far)).collect();
                let sources: HashSet<Side> = arrivals.iter().map(|arrival| arrival.source).collect();
                assert_eq!(sources.len(), arrivals.len(), "{sources:?}");
                for arrival in &arrivals {
                    assert_eq!(arrival.source.0 == who.0, foreign || far.is_local(), "{arrival:?}");
                    let asked = (who, arrival.frontend);
                    assert_eq!(node.answer(&memory, arrival, segment(protocol, ACK)), asked);
                }
            }
        }
    }
}

/// The port that a connection got instead of its client's may be that of a connection of the same client, before or
/// afterwards.
#[test]
fn a_client_that_uses_the_other_port_itself_is_told_apart() {
    for number in [1, 2] {
        let memory = Memory::new(1);
        let [far] = serve(&memory, [number])[..] else { panic!("one endpoint") };
        let node = Node::new(2);
        let first = client(1, 60_000);
        let mut arrivals = vec![connect(&memory, &node, TCP, (first, frontend(0)), far)];
        arrivals.push(connect(&memory, &node, TCP, (first, frontend(1)), far));
        let second = client(1, 60_001);
        if far.is_local() {
            // It has only the port 60001 to get, and the second client's connection only 60000, which is taken.
            assert_eq!(arrivals[1].source.1.get(), 60_001);
            let fate = node.send(&memory, TCP, (second, frontend(0)), Segment::tcp(SYN), || Some(far));
            assert_eq!(fate, Fate::Refused(Begun::NoPort));
            let wider = Node::new(64);
            arrivals.push(connect(&memory, &wider, TCP, (second, frontend(0)), far));
        }
        let sources: HashSet<Side> = arrivals.iter().map(|arrival| arrival.source).collect();
        assert_eq!(sources.len(), arrivals.len(), "{arrivals:?}");
        for arrival in &arrivals {
            let asked = (arrival.client, arrival.frontend);
            assert_eq!(node.answer(&memory, arrival, Segment::tcp(ACK)), asked);
        }
    }
}

/// Once the other connection is over, a client keeps its port again.
#[test]
fn a_client_keeps_its_port_after_the_other_connection_has_ended() {
    let memory = Memory::new(1);
    let [here] = serve(&memory, [2])[..] else { panic!("one endpoint") };
    let node = Node::new(64);
    let who = client(1, 2000);
    let arrival = connect(&memory, &node, TCP, (who, frontend(0)), here);
    let end = |arrival: &Arrival| {
        node.send(&memory, TCP, (who, arrival.frontend), Segment::tcp(FIN | ACK), || None);
        node.answer(&memory, arrival, Segment::tcp(FIN | ACK));
    };
    end(&arrival);
    let second = connect(&memory, &node, TCP, (who, frontend(1)), here);
    assert_eq!(second.source, who);
    let third = connect(&memory, &node, TCP, (who, frontend(2)), here);
    assert_ne!(third.source, who);
    end(&third);
    // Its late packets do not leave with a port that another one has by now.
    let late = node.send(&memory, TCP, (who, frontend(2)), Segment::tcp(ACK), || None);
    assert_eq!(late, Fate::Arrives { source: third.source, endpoint: third.endpoint });
    memory.owners.borrow_mut().fill(proxy_common::PortOwners::default());
    let late = node.send(&memory, TCP, (who, frontend(2)), Segment::tcp(ACK), || None);
    assert_eq!(late, Fate::Dropped);
    assert!(memory.all().iter().any(|(_, record)| record.ends.flags & Ends::REMAPPED != 0));
}
