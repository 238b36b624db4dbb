//! Datagrams larger than a packet, fragmented in both directions.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use sidestep_tests::{TwoNodes, cluster::Backend, in_every_variant, two_nodes::ways_in};

use crate::serve;

in_every_variant!(large_datagrams_reach_an_endpoint_here, large_datagrams_reach_an_endpoint_on_another_node);

/// Lengths below and far above a packet, in turns.
const LENGTHS: [usize; 7] = [2000, 100, 8000, 1400, 2000, 8000, 60_000];
/// How often a datagram is sent: once for each direction's smaller MTU to be reported, and once more.
const ATTEMPTS: usize = 3;

fn large_datagrams_reach_an_endpoint_here(nodes: &TwoNodes) {
    answered(nodes, &nodes.backend_here("local").expect("a pod"));
}

fn large_datagrams_reach_an_endpoint_on_another_node(nodes: &TwoNodes) {
    answered(nodes, &nodes.backend_there("remote").expect("a pod"));
}

/// The server echoes datagrams of each length, on one socket, so that whole packets and fragments share a flow.
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

/// Sends `length` bytes, again if they are lost: in IPv6 only the sender fragments, and where a VXLAN is on the way it
/// learns the MTU from an ICMP error about a fragment.
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
