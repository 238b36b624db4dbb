//! Longer headers: IPv4 options and IPv6 extension headers.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use sidestep_tests::{
    TwoNodes, in_every_variant,
    sockets::set_bytes,
    traffic::{Asker, Conversation, PATIENCE},
    two_nodes::node_ports,
};
use socket2::{Domain, Socket, Type};

use crate::serve;

in_every_variant!(packets_with_options_and_extension_headers_are_served);

/// Four no-operation options; a record-route option with room for one address.
const V4: [&[u8]; 2] = [&[1, 1, 1, 1], &[7, 7, 4, 0, 0, 0, 0, 0]];
/// An extension header with four bytes of padding.
const V6: &[u8] = &[0, 0, 1, 4, 0, 0, 0, 0];

/// The options to try, each as level, name and value, for sockets of the family of `address`.
fn options(address: SocketAddr) -> Vec<(i32, i32, &'static [u8])> {
    if address.is_ipv4() {
        V4.map(|value| (libc::IPPROTO_IP, libc::IP_OPTIONS, value)).into()
    } else {
        [libc::IPV6_DSTOPTS, libc::IPV6_HOPOPTS].map(|name| (libc::IPPROTO_IPV6, name, V6)).into()
    }
}

fn packets_with_options_and_extension_headers_are_served(nodes: &TwoNodes) {
    for server in [nodes.backend_here("here").expect("a pod"), nodes.backend_there("there").expect("a pod")] {
        let _agent = serve(nodes, &[&server]);
        for way in node_ports() {
            for (level, name, value) in options(way.tcp) {
                nodes.outside().run(|| {
                    let answer = ask_tcp(way.tcp, level, name, value);
                    let answer =
                        answer.unwrap_or_else(|error| panic!("TCP, {way:?}, option {name}: {error}"));
                    assert_eq!(answer, server.place.name());
                    let asker = Asker::for_address(way.udp).expect("a socket");
                    set_bytes(asker.socket(), level, name, value).expect("an option");
                    let answer = asker.ask(way.udp);
                    answer.unwrap_or_else(|error| panic!("UDP, {way:?}, option {name}: {error}"));
                    asker.socket().set_read_timeout(Some(Duration::from_secs(1))).expect("an option");
                    large(asker.socket(), way.udp).unwrap_or_else(|error| {
                        panic!("a large datagram, {way:?}, option {name}: {error}");
                    });
                });
            }
        }
    }
}

fn ask_tcp(address: SocketAddr, level: i32, name: i32, value: &[u8]) -> io::Result<String> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    set_bytes(&socket, level, name, value)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.connect(&address.into())?;
    Ok(Conversation::over(socket.into())?.ask()?.server)
}

/// Fragments have these headers, too.
fn large(socket: &UdpSocket, address: SocketAddr) -> io::Result<()> {
    let mut buffer = [0; 8000];
    // The first datagrams may be lost, until the sender knows the path MTU.
    for attempt in 0..3 {
        socket.send_to(&[b'x'; 4000], address)?;
        match socket.recv(&mut buffer) {
            Ok(received) => assert!(buffer[..received].ends_with(&[b'x'; 4000])),
            Err(_) if attempt < 2 => continue,
            Err(error) => return Err(error),
        }
        break;
    }
    Ok(())
}
