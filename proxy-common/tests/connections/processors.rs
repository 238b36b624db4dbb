//! Two processors at once. Every interleaving is tried in which one processor acts between two accesses of the
//! other.

use std::collections::HashMap;

use proxy_common::{
    Record,
    connection::{Begun, Ends, RecordId},
    packet::Segment,
};

use crate::{
    memory::Memory,
    node::{ACK, Arrival, FIN, Fate, Node, RST, SYN, Side, TCP, UDP, client, confirmed, frontend, serve},
};

/// More accesses than a packet makes.
const MANY: u32 = 400;

/// Checks the invariants of the tables.
fn check(memory: &Memory, what: &str) {
    let (mut clients, mut sources) = (HashMap::<(u8, Side, Side), RecordId>::new(), HashMap::new());
    let mut inside = HashMap::<(u8, Side, Side), RecordId>::new();
    for (id, Record { ends, origin }) in memory.all() {
        assert_eq!(memory.kept(id) & 2, 0, "{what}: {id:?} is still reserved");
        let (client, frontend) = (ends.from(), ends.asked());
        let other = clients.insert((ends.protocol, client, frontend), id);
        assert_eq!(other, None, "{what}: two records of {client:?}");
        let other = inside.insert((ends.protocol, ends.inside(&origin), ends.to()), id);
        assert_eq!(other, None, "{what}: two records of one tuple between ingress and egress");
        if ends.has_source_port() && !ends.seen.ended() {
            let other: Option<Ends> = sources.insert((ends.protocol, ends.to(), origin.masquerade()), ends);
            assert_eq!(other, None, "{what}: two live connections with one SNAT source");
            let owners = memory.owners.borrow()[usize::from(origin.source_port.get())];
            assert!(owners.record_ids.contains(&id.0), "{what}: {id:?} does not own its port");
        }
    }
    for (index, tags) in memory.tags.borrow().iter().enumerate() {
        let uses = memory.uses.borrow()[index];
        assert!(tags.reach == 0 || uses.away > 0, "{what}: bucket {index} has reach, but no record is away");
    }
}

type Say = (u8, Side, Side, u8);

fn segment(protocol: u8, bits: u8) -> Segment {
    if protocol == TCP { Segment::tcp(bits) } else { Segment::DATAGRAM }
}

/// Sends the packet `one`, and `other` before each access of `one` in turn. `before` prepares the tables.
fn interleave(what: &str, ports: u16, before: impl Fn(&Memory, &Node), one: Say, other: Say) {
    for turn in 0..MANY {
        let memory = Memory::new(1);
        let node = Node::new(ports);
        serve(&memory, [1, 3]);
        before(&memory, &node);
        let say = move |memory: &Memory, (protocol, client, frontend, bits): Say| {
            let far = crate::node::endpoint(if frontend == self::frontend(1) { 3 } else { 1 });
            node.send(memory, protocol, (client, frontend), segment(protocol, bits), || Some(far))
        };
        memory.interrupt(
            turn,
            Box::new(move |memory| {
                let fate = say(memory, other);
                assert!(
                    !matches!(fate, Fate::Arrives { source, .. } if source == other.1),
                    "the packet has the address of its client"
                );
            }),
        );
        let fate = say(&memory, one);
        let what = format!("{what}, before access {turn}");
        assert!(
            !matches!(fate, Fate::Arrives { source, .. } if source == one.1),
            "{what}: the packet has the address of its client"
        );
        let is_over = !memory.was_interrupted();
        check(&memory, &what);
        if is_over {
            assert!(turn > 5, "{what}: too few accesses");
            return;
        }
        // A client that had to retransmit is served now.
        for (protocol, client, frontend, bits) in [one, other] {
            if bits & SYN != 0 || protocol == UDP {
                let fate = say(&memory, (protocol, client, frontend, bits));
                let is_served = matches!(fate, Fate::Arrives { .. } | Fate::Refused(Begun::NoPort));
                assert!(is_served || ports < 2, "{what}: {fate:?}");
            }
        }
        check(&memory, &what);
    }
    panic!("{what}: more accesses than {MANY}");
}

#[test]
fn one_connection_begins_once() {
    for protocol in [TCP, UDP] {
        let say = (protocol, client(1, 2000), frontend(0), SYN);
        interleave("the same connection", 64, |_, _| {}, say, say);
    }
}

#[test]
fn two_connections_of_a_client_begin() {
    let say = |to| (TCP, client(1, 2000), frontend(to), SYN);
    interleave("two frontends", 64, |_, _| {}, say(0), say(1));
}

#[test]
fn two_connections_of_a_client_port_to_one_endpoint_begin() {
    for protocol in [TCP, UDP] {
        let say = |to| (protocol, client(1, 2000), frontend(to), SYN);
        interleave("one endpoint", 64, |_, _| {}, say(0), say(2));
    }
}

#[test]
fn two_clients_get_two_ports() {
    let say = |who| (TCP, client(who, 2000), frontend(0), SYN);
    for ports in [1, 2, 3] {
        interleave("two clients", ports, |_, _| {}, say(1), say(2));
    }
}

/// Begins a connection, and completes its handshake if it is to be confirmed.
fn handshake(memory: &Memory, node: &Node, who: Side, to: Side, confirm: bool) {
    let far = crate::node::endpoint(1);
    let say = |bits| node.send(memory, TCP, (who, to), Segment::tcp(bits), || Some(far));
    let Fate::Arrives { source, endpoint } = say(SYN) else { panic!("no connection") };
    let arrival = Arrival { protocol: TCP, client: who, frontend: to, source, endpoint };
    assert_eq!(node.answer(memory, &arrival, Segment::tcp(SYN | ACK)), (who, to));
    if confirm {
        say(ACK);
    }
}

/// A connection is not evicted while it is being confirmed.
#[test]
fn a_connection_is_confirmed_or_pushed_out_and_never_both() {
    let (who, to) = (client(1, 2000), frontend(0));
    for confirming in [true, false] {
        for turn in 0..MANY {
            let memory = Memory::new(1);
            let node = Node::new(64);
            serve(&memory, [1]);
            handshake(&memory, &node, who, to, false);
            // All other slots are protected.
            let (id, _) = memory.all()[0];
            for (bucket, uses) in memory.uses.borrow_mut().iter_mut().enumerate() {
                for (slot, kept) in uses.kept.iter_mut().enumerate() {
                    let is_it = (bucket, slot) == (id.bucket() as usize, id.slot() as usize);
                    *kept = u8::from(!is_it);
                }
            }
            memory
                .tags
                .borrow_mut()
                .iter_mut()
                .for_each(|tags| tags.tags.iter_mut().for_each(|tag| *tag |= 1));
            memory.tags.borrow_mut()[id.bucket() as usize].tags[id.slot() as usize] = tag_of(who);
            let far = crate::node::endpoint(1);
            let newcomer =
                (0..u16::MAX).map(|port| client(2, port)).find(|other| bucket_of(*other) == id.bucket());
            let newcomer = newcomer.expect("a client with this home bucket");
            let confirm =
                move |memory: &Memory| node.send(memory, TCP, (who, to), Segment::tcp(ACK), || None);
            let begin = move |memory: &Memory| {
                node.send(memory, TCP, (newcomer, to), Segment::tcp(SYN), || Some(far))
            };
            if confirming {
                memory.interrupt(turn, Box::new(move |memory| _ = begin(memory)));
                confirm(&memory);
            } else {
                memory.interrupt(turn, Box::new(move |memory| _ = confirm(memory)));
                begin(&memory);
            }
            let is_over = !memory.was_interrupted();
            let kept = confirmed(&memory, TCP, who, to).is_some();
            let begun = memory.all().iter().any(|(_, record)| record.ends.from() == newcomer);
            assert!(kept != begun || is_over, "turn {turn}: kept {kept}, begun {begun}");
            if is_over {
                assert!(turn > 5);
                break;
            }
        }
    }
}

fn home_of(client: Side) -> proxy_common::connection::Home {
    use proxy_common::connection::{Flows as _, Home, buckets};
    let memory = Memory::new(1);
    Home::new(buckets::hash(&client.0, client.1, TCP, memory.seed()), 1)
}

fn bucket_of(client: Side) -> u32 {
    home_of(client).bucket(0)
}

fn tag_of(client: Side) -> u8 {
    home_of(client).tag()
}

/// The end of a connection, with a further packet or a new connection from the same port, leaves one record, and
/// no ended connection protects its slot.
#[test]
fn an_end_and_what_comes_with_it_leave_one_record() {
    let (who, to) = (client(1, 2000), frontend(0));
    for (one, other) in
        [(RST, ACK), (RST, SYN), (RST, RST), (ACK, ACK), (FIN | ACK, ACK), (ACK, RST), (SYN, RST)]
    {
        interleave(
            &format!("{one:#x} and {other:#x}"),
            64,
            |memory, node| handshake(memory, node, who, to, true),
            (TCP, who, to, one),
            (TCP, who, to, other),
        );
    }
}

/// A port that is taken over has one new owner, and the record of the first owner no longer claims it.
#[test]
fn a_port_that_is_taken_over_has_one_owner() {
    let (who, to) = (client(1, 2000), frontend(0));
    interleave(
        "the only port",
        1,
        |memory, node| handshake(memory, node, who, to, false),
        (TCP, client(2, 2000), to, SYN),
        (TCP, client(3, 2000), to, SYN),
    );
}
