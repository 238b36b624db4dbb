//! Random sequences of events, and single stories.

use proptest::prelude::*;
use proxy_common::{
    Endpoint,
    connection::{Begun, SourcePorts},
    packet::Segment,
};

use crate::{
    memory::Memory,
    node::{ACK, Arrival, FIN, Fate, Node, RST, SYN, Side, TCP, client, confirmed, frontend, serve},
    story::{Step, run},
};

fn step() -> impl Strategy<Value = Step> {
    let control = || prop::sample::select(vec![SYN, SYN, ACK, ACK, ACK, ACK | FIN, RST, SYN | ACK]);
    let speak = (
        0..4_u8,
        2000..2003_u16,
        0..3_u16,
        prop::option::weighted(0.6, control()),
        prop::option::weighted(0.7, control()),
    );
    let speak = speak.prop_map(|(client, port, frontend, segment, answer)| Step::Speak {
        client,
        port,
        frontend,
        segment,
        answer,
    });
    prop_oneof![
        20 => speak,
        1 => (1..40_u8).prop_map(|clients| Step::Flood { clients }),
        1 => prop_oneof![1..3_u32, Just(31), Just(130)].prop_map(|seconds| Step::Wait { seconds }),
        1 => (0..4_u8).prop_map(|endpoint| Step::Change { endpoint }),
        2 => any::<u8>().prop_map(|number| Step::Evict { number }),
        1 => any::<u8>().prop_map(|number| Step::Idle { number }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn connections_are_kept_apart_and_together(steps in prop::collection::vec(step(), 1..150), foreign in any::<bool>()) {
        run(4, 64, foreign, steps)?;
    }

    #[test]
    fn connections_are_kept_apart_with_few_source_ports(steps in prop::collection::vec(step(), 1..150), ports in 1..6_u16) {
        run(1, ports, false, steps)?;
    }
}

/// While live connections own all source ports, another client is refused. After one of them ended, its port is
/// free.
#[test]
fn a_client_too_many_is_refused_until_another_one_ends() {
    let memory = Memory::new(1);
    let [far] = serve(&memory, [1])[..] else { panic!("one endpoint") };
    let mut node = Node { ports: SourcePorts { first: 60_000, count: 3 }, ..Node::new(3) };
    let say = |node: &Node, number, bits| {
        node.send(&memory, TCP, (client(number, 2000), frontend(0)), Segment::tcp(bits), || Some(far))
    };
    for number in 0..3 {
        let fate = say(&node, number, SYN);
        let Fate::Arrives { source, endpoint } = fate else { panic!("{number}: {fate:?}") };
        let (who, frontend) = (client(number, 2000), frontend(0));
        let arrival = Arrival { protocol: TCP, client: who, frontend, source, endpoint };
        assert_eq!(node.answer(&memory, &arrival, Segment::tcp(SYN | ACK)), (who, frontend));
        say(&node, number, ACK);
        assert!(confirmed(&memory, TCP, who, frontend).is_some());
    }
    node.clock.seconds += 1000;
    assert_eq!(say(&node, 9, SYN), Fate::Refused(Begun::NoPort));
    say(&node, 1, RST);
    assert!(matches!(say(&node, 9, SYN), Fate::Arrives { .. }), "the free port is not found");
}

/// Slots are reused, and so are the lanes of a source port: a lane may name the slot of a record that gave this port up to
/// a record in another lane.
///
/// ST-13.
#[test]
fn an_answer_passes_by_a_record_that_gave_its_port_up() {
    let asks =
        |answer| Step::Speak { client: 1, port: 2000, frontend: 0, segment: Some(SYN), answer: Some(answer) };
    let steps = vec![
        Step::Flood { clients: 7 },
        Step::Wait { seconds: 128 },
        Step::Change { endpoint: 0 },
        Step::Flood { clients: 18 },
        asks(RST),
        Step::Wait { seconds: 66 },
        Step::Wait { seconds: 128 },
        Step::Change { endpoint: 0 },
        Step::Flood { clients: 9 },
        asks(ACK),
    ];
    run(4, 1, false, steps).expect("the answer is the client's");
}

/// Connects a client to NodePort 0, whose only endpoint is `far`.
fn connect(memory: &Memory, node: &Node, far: Endpoint) -> (Side, Side, Arrival) {
    let (who, frontend) = (client(1, 2000), frontend(0));
    let say = |bits| node.send(memory, TCP, (who, frontend), Segment::tcp(bits), || Some(far));
    let Fate::Arrives { source, endpoint } = say(SYN) else { panic!("no connection") };
    let arrival = Arrival { protocol: TCP, client: who, frontend, source, endpoint };
    node.answer(memory, &arrival, Segment::tcp(SYN | ACK));
    say(ACK);
    assert!(confirmed(memory, TCP, who, frontend).is_some());
    (who, frontend, arrival)
}

/// A reset that is forged or out of the window ends nothing: the connection continues, and is protected as before.
#[test]
fn whoever_goes_on_after_a_reset_has_not_sent_it() {
    for by_client in [true, false] {
        let memory = Memory::new(1);
        let [far] = serve(&memory, [1])[..] else { panic!("one endpoint") };
        let node = Node::new(3);
        let (who, frontend, arrival) = connect(&memory, &node, far);
        let say = |by_client, bits| {
            if by_client {
                node.send(&memory, TCP, (who, frontend), Segment::tcp(bits), || None);
            } else {
                node.answer(&memory, &arrival, Segment::tcp(bits));
            }
        };
        say(by_client, RST);
        say(!by_client, ACK);
        assert!(
            confirmed(&memory, TCP, who, frontend).is_none(),
            "a packet of the other side revokes the reset"
        );
        say(by_client, ACK);
        assert!(confirmed(&memory, TCP, who, frontend).is_some(), "by the client: {by_client}");
    }
}

/// After the end, a SYN-ACK between the same client and endpoint belongs to a connection without a record.
#[test]
fn an_answer_to_another_connection_between_the_same_two_is_left_alone() {
    for end in [[RST, RST], [FIN | ACK, FIN | ACK]] {
        let memory = Memory::new(1);
        let [far] = serve(&memory, [1])[..] else { panic!("one endpoint") };
        let node = Node::new(3);
        let (who, frontend, arrival) = connect(&memory, &node, far);
        let last = (who, frontend);
        node.send(&memory, TCP, last, Segment::tcp(end[0]), || None);
        for bits in [end[1], ACK] {
            assert_eq!(
                node.answer(&memory, &arrival, Segment::tcp(bits)),
                last,
                "a late answer is still translated"
            );
        }
        for bits in [SYN | ACK, ACK] {
            let answer = node.answer(&memory, &arrival, Segment::tcp(bits));
            assert_eq!(answer, (arrival.source, arrival.endpoint), "{bits:#x} after {end:?}");
        }
    }
}
