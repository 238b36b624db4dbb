//! Listeners to a flood of events.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread::{scope, sleep},
    time::Duration,
};

use proxy_agent::dataplane::{Listening, monotonic_nanoseconds};
use proxy_common::{Happening, Listener};
use sidestep_tests::{
    lab,
    packets::{Datagram, SYN, ethernet},
};

use crate::{
    node::{Kind, Node},
    test_run::{DROP, Runner},
};

/// Refused packets, as fast as a processor makes them: a second or two of them.
const MANY: u32 = 2_000_000;
/// A kernel that emulates a processor makes fewer.
const FEW: u32 = 100_000;

/// Each event that a listener wants is told or counted as dropped, and it takes no more memory than its buffer.
#[test]
fn a_flood_of_events_is_told_or_counted() {
    let lab = lab!();
    lab.node().run(|| {
        let node = Node::new(&lab, 1 << 12);
        let mut ingress = Runner::new(&node.programs, "ingress", node.uplink);
        let [frontend, ..] = Kind::NoneHere.frontends(node.addresses[0]);
        let client = SocketAddr::from(([192, 0, 2, 100], 45_678));
        let frame = ethernet(&Datagram::tcp(client, frontend, SYN, Vec::new()).packet());
        assert_eq!(ingress.run(&frame).action, DROP);
        let one = ingress.run_repeatedly(&frame, 10_000);
        let times = if one < Duration::from_micros(5) { MANY } else { FEW };
        let silent = ingress.run_repeatedly(&frame, times);

        let listen = |wishes: &Listener| {
            Listening::new(lab.pin_directory(), wishes, monotonic_nanoseconds()).expect("a listener")
        };
        let mut other =
            listen(&Listener { happenings: 1 << Happening::Ended as u32, ..Listener::EVERYTHING });
        let filtered = ingress.run_repeatedly(&frame, times);
        assert_eq!((other.heard(), other.next_event().expect("no other version")), ((0, 0), None));
        drop(other);

        let (mut listener, end) = (listen(&Listener::EVERYTHING), AtomicBool::new(false));
        let listening = scope(|scope| {
            let listener = scope.spawn(|| {
                let mut told = 0;
                loop {
                    let is_last = end.load(Ordering::Relaxed);
                    while let Some(event) = listener.next_event().expect("no other version") {
                        assert_eq!(event.happening, Happening::Refused as u8);
                        told += 1;
                    }
                    assert!(listener.go_on(monotonic_nanoseconds()));
                    if is_last {
                        break (told, listener.heard());
                    }
                    sleep(Duration::from_millis(10));
                }
            });
            let took = ingress.run_repeatedly(&frame, times);
            end.store(true, Ordering::Relaxed);
            let (told, (heard, dropped)) = listener.join().expect("a listener");
            assert_eq!(
                (heard, told + dropped),
                (times.into(), times.into()),
                "{told} told, {dropped} dropped"
            );
            println!("{times} events in {:?}: {told} told, {dropped} dropped", took * times);
            took
        });
        println!(
            "a refused packet: nobody listens {silent:?}, to something else {filtered:?}, to it {listening:?}"
        );
    });
}
