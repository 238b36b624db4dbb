//! One client port with many frontends, and the number of connections in a full table.

use proxy_common::{Address, Endpoint, Port, connection::Begun, packet::Segment};

use crate::{
    memory::Memory,
    node::{ACK, Arrival, Fate, Node, SYN, Side, TCP, UDP, client, confirmed, frontend},
};

/// An endpoint on another node.
fn far(number: u16) -> Endpoint {
    let [high, low] = number.to_be_bytes();
    Endpoint {
        address: Address::from_v4([10, 244, high, low]),
        id: 1 + u32::from(number),
        service: 1,
        port: Port::new(8080),
        generation: 1,
        flags: 0,
    }
}

fn confirm(
    memory: &Memory,
    node: &Node,
    protocol: u8,
    ends: (Side, Side),
    endpoint: Endpoint,
) -> Result<(), Begun> {
    let (first, second) = if protocol == TCP {
        (Segment::tcp(SYN), Segment::tcp(ACK))
    } else {
        (Segment::DATAGRAM, Segment::DATAGRAM)
    };
    memory.serving.borrow_mut().insert((endpoint.id, endpoint.generation));
    match node.send(memory, protocol, ends, first, || Some(endpoint)) {
        Fate::Arrives { source, endpoint } => {
            let arrival = Arrival { protocol, client: ends.0, frontend: ends.1, source, endpoint };
            let answer = if protocol == TCP { Segment::tcp(SYN | ACK) } else { Segment::DATAGRAM };
            assert_eq!(node.answer(memory, &arrival, answer), ends);
        }
        Fate::Refused(begun) => return Err(begun),
        fate => panic!("{fate:?}"),
    }
    node.send(memory, protocol, ends, second, || None);
    assert!(confirmed(memory, protocol, ends.0, ends.1).is_some());
    Ok(())
}

/// A hundred connections of one client port, each to another frontend and endpoint, coexist. After their end,
/// lookups search only the home bucket of the client again.
#[test]
fn a_client_port_may_ask_many_frontends() {
    for protocol in [TCP, UDP] {
        let (memory, node) = (Memory::new(2), Node::new(1000));
        let who = client(1, 5353);
        for number in 0..100 {
            confirm(&memory, &node, protocol, (who, frontend(number)), far(number))
                .expect("a free slot and port");
        }
        for number in 0..100 {
            let (ends, ..) =
                confirmed(&memory, protocol, who, frontend(number)).expect("a confirmed connection");
            assert_eq!(ends.to(), (far(number).address, Port::new(8080)), "{number}");
        }
        assert_eq!(memory.tags.borrow().iter().filter(|tags| tags.reach > 0).count(), 1);
        // They end, and other connections reuse their slots.
        memory
            .uses
            .borrow_mut()
            .iter_mut()
            .for_each(|uses| uses.kept.iter_mut().for_each(|kept| *kept &= !1));
        let mut node = node;
        for turn in 0..40_u16 {
            node.clock.seconds += 100;
            for port in 0..200 {
                let ends = (client(2, 1000 + 200 * turn + port), frontend(turn));
                node.send(&memory, TCP, ends, Segment::tcp(SYN), || Some(far(200 + port)));
            }
        }
        let home = memory.tags.borrow().iter().filter(|tags| tags.reach > 3).count();
        assert_eq!(home, 0, "a home reaches further than the search for a slot");
    }
}

/// A table is at least 80 % full of confirmed connections when the first one finds no slot.
#[test]
fn a_table_is_nearly_full_before_somebody_is_refused() {
    const REGIONS: usize = 20;
    let (memory, node) = (Memory::new(REGIONS), Node::new(16_384));
    let room = REGIONS * 448;
    let mut confirmed = 0;
    for number in 0..u32::try_from(room).expect("a small number") {
        let [_, a, b, c] = number.wrapping_mul(2_654_435).to_be_bytes();
        let who = (Address::from_v4([100, a, b, c]), Port::new(40_000));
        let endpoint = far(u16::try_from(number % 500).expect("a small number"));
        match confirm(&memory, &node, TCP, (who, frontend(0)), endpoint) {
            Ok(()) => confirmed += 1,
            Err(begun) => {
                assert_eq!(begun, Begun::NoRoom);
                break;
            }
        }
    }
    let percent = 100 * confirmed / room;
    println!("{percent} % of {room} slots had confirmed connections when one found no slot");
    assert!(percent >= 80, "{percent} %");
}

/// A client that asks with a new port each time, such as a resolver, finds a source port as long as those of the last
/// seconds leave some free: datagrams are not sent again by the network.
#[test]
fn a_source_port_is_found_at_any_rate_that_leaves_some_free() {
    const PORTS: u16 = 1024;
    for per_second in [10, 50, 100] {
        let (memory, mut node) = (Memory::new(64), Node::new(PORTS));
        let endpoint = far(1);
        memory.serving.borrow_mut().insert((endpoint.id, endpoint.generation));
        let mut refused = 0;
        for number in 0..20_000_u32 {
            let [_, _, high, low] = number.to_be_bytes();
            let ends = (client(1, u16::from_be_bytes([high, low])), frontend(0));
            match node.send(&memory, UDP, ends, Segment::DATAGRAM, || Some(endpoint)) {
                Fate::Arrives { source, endpoint } => {
                    let arrival =
                        Arrival { protocol: UDP, client: ends.0, frontend: ends.1, source, endpoint };
                    assert_eq!(node.answer(&memory, &arrival, Segment::DATAGRAM), ends);
                }
                fate => {
                    assert_eq!(fate, Fate::Refused(Begun::NoPort));
                    refused += 1;
                }
            }
            node.clock.seconds += u32::from(number % per_second == 0);
        }
        assert_eq!(refused, 0, "{per_second} a second");
    }
}
