//! Fragments of a datagram in any order: only the first one has ports, and it need not arrive first.

use std::{
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use serde_json::Value;
use sidestep_tests::{
    TwoNodes,
    cluster::Backend,
    eventually,
    frames::FrameSender,
    in_every_variant,
    packets::{Datagram, Transport},
    two_nodes::node_ports,
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::serve;

in_every_variant!(
    fragments_in_any_order_at_once_are_answered,
    fragments_in_any_order_a_tenth_of_a_millisecond_apart_are_answered,
    fragments_in_any_order_two_milliseconds_apart_are_answered,
    fragments_of_other_protocols_are_not_held,
);

/// The orders of three fragments.
const ORDERS: [[usize; 3]; 4] = [[0, 1, 2], [1, 0, 2], [2, 1, 0], [0, 2, 1]];
/// Bytes of a fragment (a multiple of eight), and of the datagram.
const PIECE: usize = 1200;
const LENGTH: usize = 3000;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_millis(500);
/// All fragments have to be sent within half of the time for which the programs hold them; a busy machine takes longer.
const TOGETHER: Duration = Duration::from_millis(25);
/// How often to repeat a datagram that took longer.
const TRIES: u32 = 10;
/// After this time all rounds of a second are free again, of which those that came too late have taken many.
const RECOVERY: Duration = Duration::from_millis(1_100);

/// PO-29.
fn fragments_in_any_order_at_once_are_answered(nodes: &TwoNodes) {
    answered(nodes, Duration::ZERO);
}

/// PO-29.
fn fragments_in_any_order_a_tenth_of_a_millisecond_apart_are_answered(nodes: &TwoNodes) {
    answered(nodes, Duration::from_micros(100));
}

/// PO-29.
fn fragments_in_any_order_two_milliseconds_apart_are_answered(nodes: &TwoNodes) {
    answered(nodes, Duration::from_millis(2));
}

/// PO-29: FRAGMENTS never has their first fragment, so a held later one would circulate until its time is over.
fn fragments_of_other_protocols_are_not_held(nodes: &TwoNodes) {
    let mut frames = FrameSender::new(nodes).expect("a packet socket");
    let server = nodes.backend_here("here").expect("a pod");
    let _agent = serve(nodes, &[&server]);
    for (source, way) in nodes.outside().addresses().into_iter().zip(node_ports()) {
        let sctp = Datagram::new(SocketAddr::new(source, 5000), way.udp, Transport::Sctp, payload(1));
        let protocol = Protocol::from(i32::from(sctp.protocol()));
        let receiver = nodes.node().run(|| {
            Socket::new(Domain::for_address(way.udp), Type::RAW, Some(protocol)).expect("a raw socket")
        });
        receiver.set_read_timeout(Some(PATIENCE)).expect("an option");
        let pieces = sctp.pieces(PIECE);
        for piece in pieces.iter().rev() {
            frames.packet_as_it_is(piece).expect("sent");
        }
        let mut buffer = Vec::with_capacity(8192);
        receiver.recv(buffer.spare_capacity_mut()).unwrap_or_else(|error| panic!("{way:?}: {error}"));
    }
    assert_eq!(late(nodes), 0);
    // A lone later fragment of a protocol with ports is held, and counted when its time is over.
    let [v4, _] = node_ports();
    let [source, _] = nodes.outside().addresses();
    let udp = Datagram::udp(SocketAddr::new(source, 5000), v4.udp, payload(2));
    frames.packet_as_it_is(&udp.pieces(PIECE)[1]).expect("sent");
    eventually("a late fragment", || late(nodes) == 1);
}

/// The late fragments that `sidestep status` counts.
fn late(nodes: &TwoNodes) -> u64 {
    let output = nodes.lab().sidestep(&["status", "-o", "json"]).expect("it runs");
    let status: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    status["events"]["late-fragments"].as_u64().expect("a count")
}

/// Each order uses a socket of its own, so that the datagram begins a flow; then the same socket once more.
fn answered(nodes: &TwoNodes, gap: Duration) {
    let mut frames = FrameSender::new(nodes).expect("a packet socket");
    let mut unanswered = Vec::new();
    let mut identification = 100;
    for server in [nodes.backend_here("here").expect("a pod"), nodes.backend_there("there").expect("a pod")] {
        let _agent = serve(nodes, &[&server]);
        for (source, way) in nodes.outside().addresses().into_iter().zip(node_ports()) {
            for order in ORDERS {
                let socket = nodes.outside().run(|| UdpSocket::bind((source, 0))).expect("a socket");
                socket.set_read_timeout(Some(PATIENCE)).expect("an option");
                for again in [false, true] {
                    let was_together = (0..TRIES).any(|_| {
                        identification += 1;
                        let took = send(&mut frames, &socket, way.udp, identification, order, gap);
                        if took > TOGETHER {
                            std::thread::sleep(RECOVERY);
                        }
                        took <= TOGETHER
                    });
                    assert!(was_together, "{TRIES} times the fragments took longer than {TOGETHER:?}");
                    if let Err(error) = is_answered(&socket, &server, identification) {
                        unanswered.push(format!(
                            "{way:?} to {}, order {order:?}, again: {again}: {error}",
                            server.place.name()
                        ));
                    }
                }
            }
        }
    }
    assert!(unanswered.is_empty(), "{} datagrams, {gap:?} apart: {unanswered:#?}", unanswered.len());
}

/// A payload unique to this datagram.
fn payload(identification: u32) -> Vec<u8> {
    let number = identification.to_be_bytes();
    number.into_iter().chain((0..=250).cycle()).take(LENGTH).collect()
}

/// Sends the fragments, and returns how long that took.
fn send(
    frames: &mut FrameSender,
    socket: &UdpSocket,
    destination: SocketAddr,
    identification: u32,
    order: [usize; 3],
    gap: Duration,
) -> Duration {
    let source = socket.local_addr().expect("an address");
    let mut datagram = Datagram::udp(source, destination, payload(identification));
    datagram.identification = Some(identification);
    let pieces = datagram.pieces(PIECE);
    assert_eq!(pieces.len(), 3);
    let start = Instant::now();
    for (turn, piece) in (0..).zip(order) {
        // The kernel rounds sleeps up, so a tenth of a millisecond is a busy wait.
        while start.elapsed() < gap * turn {
            std::hint::spin_loop();
        }
        frames.packet_as_it_is(&pieces[piece]).expect("sent");
    }
    start.elapsed()
}

/// Checks that the server repeats the request. Answers to earlier attempts may arrive first.
fn is_answered(socket: &UdpSocket, server: &Backend, identification: u32) -> std::io::Result<()> {
    let (mut buffer, payload) = ([0; 8192], payload(identification));
    for _ in 0..TRIES {
        let length = socket.recv(&mut buffer)?;
        let answer = &buffer[..length];
        assert!(
            answer.starts_with(server.place.name().as_bytes()),
            "the answer is not from {}",
            server.place.name()
        );
        if answer.ends_with(&payload) {
            return Ok(());
        }
    }
    Err(std::io::Error::other("only answers to other datagrams arrived"))
}
