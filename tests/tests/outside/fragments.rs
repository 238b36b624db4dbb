//! Fragments of a datagram in any order: only the first one has ports, and it need not come first.

use std::{
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use sidestep_tests::{
    TwoNodes, cluster::Backend, frames::FrameSender, in_every_variant, packets::Datagram,
    two_nodes::node_ports,
};

use crate::serve;

in_every_variant!(
    fragments_in_any_order_at_once_are_answered,
    fragments_in_any_order_a_tenth_of_a_millisecond_apart_are_answered,
    fragments_in_any_order_two_milliseconds_apart_are_answered,
);

/// In which three fragments come.
const ORDERS: [[usize; 3]; 4] = [[0, 1, 2], [1, 0, 2], [2, 1, 0], [0, 2, 1]];
/// Bytes of a fragment, a multiple of eight, and of the datagram.
const PIECE: usize = 1200;
const LENGTH: usize = 3000;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_millis(500);

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

/// Each order on a socket of its own, so that no record is there before the datagram; and once more on the same socket.
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
                    identification += 1;
                    send(&mut frames, &socket, way.udp, identification, order, gap);
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

/// A payload that no other datagram has.
fn payload(identification: u32) -> Vec<u8> {
    let number = identification.to_be_bytes();
    number.into_iter().chain((0..=250).cycle()).take(LENGTH).collect()
}

fn send(
    frames: &mut FrameSender,
    socket: &UdpSocket,
    destination: SocketAddr,
    identification: u32,
    order: [usize; 3],
    gap: Duration,
) {
    let source = socket.local_addr().expect("an address");
    let mut datagram = Datagram::udp(source, destination, payload(identification));
    datagram.identification = Some(identification);
    let pieces = datagram.pieces(PIECE);
    assert_eq!(pieces.len(), 3);
    let start = Instant::now();
    for (turn, piece) in (0..).zip(order) {
        // The kernel's sleep is no shorter than what it rounds up to; a tenth of a millisecond is waited out.
        while start.elapsed() < gap * turn {
            std::hint::spin_loop();
        }
        frames.packet_as_it_is(&pieces[piece]).expect("sent");
    }
}

/// The server repeats the request.
fn is_answered(socket: &UdpSocket, server: &Backend, identification: u32) -> std::io::Result<()> {
    let mut buffer = [0; 8192];
    let length = socket.recv(&mut buffer)?;
    let (answer, payload) = (&buffer[..length], payload(identification));
    assert!(
        answer.starts_with(server.place.name().as_bytes()) && answer.ends_with(&payload),
        "another answer"
    );
    Ok(())
}
