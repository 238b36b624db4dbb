//! Loss of every part of a connection, at every point of its life: the record, its entry in SOURCE_PORTS, or both.
//! No packet leaves with the address of the client, and a client that returns with the same port is served.

use proxy_common::{PortOwners, connection::RecordId, packet::Segment};

use crate::{
    memory::Memory,
    node::{ACK, Arrival, FIN, Fate, Node, RST, SYN, TCP, UDP, client, frontend, serve},
};

/// Which parts are lost: the record, its entry in SOURCE_PORTS.
const LOSSES: [(bool, bool); 4] = [(false, false), (true, false), (false, true), (true, true)];

fn lose(memory: &Memory, (record, owner): (bool, bool)) {
    if record {
        for (id, _) in memory.all() {
            memory.evict(id);
        }
    }
    if owner {
        memory.owners.borrow_mut().fill(PortOwners::default());
    }
}

/// The packets of a connection: for each, whether the client sends it, and the segment.
fn packets(protocol: u8) -> Vec<(bool, Segment)> {
    if protocol == UDP {
        return [true, false, true, false, true].map(|asks| (asks, Segment::DATAGRAM)).into();
    }
    [
        (true, SYN),
        (false, SYN | ACK),
        (true, ACK),
        (true, ACK),
        (false, ACK),
        (true, FIN | ACK),
        (false, FIN | ACK),
        (true, ACK),
    ]
    .map(|(asks, bits)| (asks, Segment::tcp(bits)))
    .into()
}

/// ST-13: a connection exists as a whole or not at all.
#[test]
fn whatever_is_lost_nothing_leaves_with_the_clients_address() {
    for protocol in [TCP, UDP] {
        for at in 0..=packets(protocol).len() {
            for loss in LOSSES {
                let memory = Memory::new(1);
                let [far] = serve(&memory, [1])[..] else { panic!("one endpoint") };
                let node = Node::new(64);
                let (who, to) = (client(1, 2000), frontend(0));
                let what = format!("protocol {protocol}, {loss:?} lost before packet {at}");
                let mut arrival = None;
                let send = |segment| node.send(&memory, protocol, (who, to), segment, || Some(far));
                let say = |segment: Segment, arrival: &mut Option<Arrival>| match send(segment) {
                    Fate::Arrives { source, endpoint } => {
                        assert_ne!(source, who, "{what}");
                        *arrival = Some(Arrival { protocol, client: who, frontend: to, source, endpoint });
                    }
                    Fate::Left => assert!(!segment.begins(), "{what}"),
                    Fate::Dropped => {}
                    Fate::Refused(begun) => panic!("{what}: {begun:?}"),
                };
                for (number, (asks, segment)) in packets(protocol).into_iter().enumerate() {
                    if number == at {
                        lose(&memory, loss);
                    }
                    if asks {
                        say(segment, &mut arrival);
                    } else if let Some(arrival) = &arrival {
                        node.answer(&memory, arrival, segment);
                    }
                }
                if at == packets(protocol).len() {
                    lose(&memory, loss);
                }
                // The client resets the connection, and returns.
                say(Segment::tcp(RST), &mut arrival);
                for (asks, segment) in packets(protocol) {
                    if asks {
                        say(segment, &mut arrival);
                    } else {
                        let arrival = arrival.as_ref().expect("a request has arrived");
                        if protocol == UDP && loss.1 {
                            // Datagrams of a connection that lost its port still belong to it.
                            continue;
                        }
                        assert_eq!(node.answer(&memory, arrival, segment), (who, to), "{what}: afterwards");
                    }
                }
            }
        }
    }
}

/// A late packet of an ended connection does not leave with a source that now belongs to another connection.
#[test]
fn what_comes_late_does_not_use_the_port_of_another_one() {
    let memory = Memory::new(1);
    let [far] = serve(&memory, [1])[..] else { panic!("one endpoint") };
    let node = Node::new(1);
    let to = frontend(0);
    let say = |who, bits| node.send(&memory, TCP, (who, to), Segment::tcp(bits), || Some(far));
    let (first, second) = (client(1, 2000), client(2, 2000));
    let Fate::Arrives { source, .. } = say(first, SYN) else { panic!("no connection") };
    assert!(matches!(say(first, RST), Fate::Arrives { .. }));
    let Fate::Arrives { source: taken, .. } = say(second, SYN) else { panic!("no connection") };
    assert_eq!(source, taken);
    assert_eq!(say(first, ACK), Fate::Dropped);
    assert!(matches!(say(second, ACK), Fate::Arrives { .. }));
    assert!(memory.all().iter().all(|(id, _)| *id != RecordId::NONE));
}
