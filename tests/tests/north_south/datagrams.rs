//! Datagrams that no single packet holds: fragments on the way in and on the way out.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use sidestep_tests::{TwoNodes, cluster::Backend, in_every_variant, two_nodes::ways_in};

use crate::serve;

in_every_variant!(large_datagrams_reach_an_endpoint_here, large_datagrams_reach_an_endpoint_on_another_node);

/// Less than a packet, and much more, in turns.
const LENGTHS: [usize; 7] = [2000, 100, 8000, 1400, 2000, 8000, 60_000];
/// How often a datagram is sent: once to be told of a smaller MTU on each way, and once more.
const ATTEMPTS: usize = 3;

fn large_datagrams_reach_an_endpoint_here(nodes: &TwoNodes) {
    answered(nodes, &nodes.backend_here("local").expect("a pod"));
}

fn large_datagrams_reach_an_endpoint_on_another_node(nodes: &TwoNodes) {
    answered(nodes, &nodes.backend_there("remote").expect("a pod"));
}

/// Datagrams of each length get an answer that repeats them, on one socket, so that flows of whole packets and of
/// fragments meet.
fn answered(nodes: &TwoNodes, server: &Backend) {
    let _agent = serve(nodes, &[server]);
    for way in ways_in() {
        nodes.outside().run(|| {
            let any: SocketAddr =
                if way.udp.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().expect("any");
            let socket = UdpSocket::bind(any).expect("a socket");
            socket.set_read_timeout(Some(Duration::from_secs(1))).expect("an option");
            socket.connect(way.udp).expect("connect");
            for length in LENGTHS {
                echoed(&socket, length).unwrap_or_else(|error| panic!("{length} bytes, {way:?}: {error}"));
            }
        });
    }
}

/// Sends so many bytes, and again if they are lost: in IPv6 only the sender cuts datagrams up, and has to be told first
/// how small, where there is a VXLAN on the way. That is an ICMP error about a fragment.
fn echoed(socket: &UdpSocket, length: usize) -> io::Result<()> {
    let question: Vec<u8> = (0..=250).cycle().take(length).collect();
    let mut buffer = vec![0; 1 << 16];
    let mut lost = None;
    for _ in 0..ATTEMPTS {
        socket.send(&question)?;
        match socket.recv(&mut buffer) {
            Ok(received) if buffer[..received].ends_with(&question) => return Ok(()),
            Ok(received) => return Err(io::Error::other(format!("{received} other bytes came"))),
            Err(error) => lost = Some(error),
        }
    }
    Err(lost.unwrap_or_else(|| io::ErrorKind::TimedOut.into()))
}
