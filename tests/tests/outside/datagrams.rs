//! Datagrams that no single packet holds: fragments on the way in and on the way out.

use std::net::{SocketAddr, UdpSocket};

use sidestep_tests::{TwoNodes, cluster::Backend, in_every_variant, traffic::PATIENCE, two_nodes::ways_in};

use crate::serve;

in_every_variant!(large_datagrams_reach_an_endpoint_here, large_datagrams_reach_an_endpoint_on_another_node);

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
            socket.set_read_timeout(Some(PATIENCE)).expect("an option");
            socket.connect(way.udp).expect("connect");
            let mut buffer = vec![0; 1 << 16];
            for length in [2000, 100, 8000, 1472, 1473, 2000, 8000, 60_000] {
                let question: Vec<u8> = (0..length).map(|number| (number * 7 % 251) as u8).collect();
                socket.send(&question).expect("sent");
                let received = socket.recv(&mut buffer);
                let received = received.unwrap_or_else(|error| panic!("{length} bytes, {way:?}: {error}"));
                assert!(buffer[..received].ends_with(&question), "{length} bytes, {way:?}: {received} came");
            }
        });
    }
}
