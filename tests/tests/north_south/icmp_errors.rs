//! ICMP errors reach the socket that they are about, on either side.

use std::{
    io,
    net::{Ipv6Addr, SocketAddr, UdpSocket},
};

use sidestep_tests::{
    TwoNodes,
    cluster::DNS_PORT,
    eventually, in_every_variant,
    sockets::set_option,
    traffic::{Asker, PATIENCE, is_refused},
    two_nodes::{Routing, Rules, node_ports, ways_in, web},
};

in_every_variant!(
    a_pod_without_the_server_refuses_the_client,
    a_client_that_is_gone_refuses_the_pod,
    an_exceeded_hop_limit_is_reported_to_the_client,
);

/// "Port unreachable" from the pod reaches the client's UDP socket.
fn a_pod_without_the_server_refuses_the_client(nodes: &TwoNodes) {
    for pod in [nodes.pod_here("here").expect("a pod"), nodes.pod_there("there").expect("a pod")] {
        nodes.publish_places("web", &web(), &[&pod]).expect("manifests");
        let _agent = nodes.lab().agent().expect("an agent");
        for way in ways_in() {
            let asker = nodes.outside().run(|| Asker::for_address(way.udp)).expect("a socket");
            asker.connect(way.udp).expect("connect");
            let answer = asker.ask_peer();
            assert!(is_refused(&answer), "{way:?} at {}: {answer:?}", pod.name());
        }
    }
}

/// "Port unreachable" from the client reaches the pod's UDP socket.
fn a_client_that_is_gone_refuses_the_pod(nodes: &TwoNodes) {
    for pod in [nodes.pod_here("here").expect("a pod"), nodes.pod_there("there").expect("a pod")] {
        nodes.publish_places("web", &web(), &[&pod]).expect("manifests");
        let _agent = nodes.lab().agent().expect("an agent");
        for way in ways_in() {
            let server = pod.run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, DNS_PORT))).expect("a socket");
            server.set_read_timeout(Some(PATIENCE)).expect("an option");
            let asker = nodes.outside().run(|| Asker::for_address(way.udp)).expect("a socket");
            asker.connect(way.udp).expect("connect");
            asker.socket().send(b"who").expect("sent");
            let (_, client) = server.recv_from(&mut [0; 16]).expect("a question");
            server.connect(client).expect("connect");
            drop(asker);
            server.send(b"me").expect("sent");
            let refused = server.recv(&mut [0; 16]);
            assert!(is_refused(&refused), "{way:?} at {}: {refused:?}", pod.name());
        }
    }
}

/// "Time exceeded" from this node and from the other one reaches the client, as traceroute needs it.
fn an_exceeded_hop_limit_is_reported_to_the_client(nodes: &TwoNodes) {
    let (here, there) = (nodes.pod_here("here").expect("a pod"), nodes.pod_there("there").expect("a pod"));
    // A CNI's rules forward only packets from pods, and so not the other node's ICMP error.
    let through = nodes.variant().rules == Rules::None || nodes.variant().routing == Routing::Vxlan;
    for (pod, hops) in [(&here, 1), (&there, 1)].into_iter().chain(through.then_some((&there, 2))) {
        nodes.publish_places("web", &web(), &[pod]).expect("manifests");
        let _agent = nodes.lab().agent().expect("an agent");
        for way in node_ports() {
            eventually("the error", || {
                let error =
                    nodes.outside().run(|| lives(way.udp, hops)).expect_err("a hop limit that is too small");
                match error.raw_os_error() {
                    Some(libc::EHOSTUNREACH) => true,
                    Some(libc::EAGAIN) => false,
                    _ => panic!("{way:?} to {} after {hops} hops: {error}", pod.name()),
                }
            });
        }
    }
}

/// Sends a datagram with this hop limit, and waits for an answer or an error.
fn lives(address: SocketAddr, hops: i32) -> io::Result<usize> {
    let asker = Asker::for_address(address)?;
    let socket = asker.socket();
    socket.set_read_timeout(Some(PATIENCE / 3))?;
    if address.is_ipv4() {
        set_option(socket, libc::IPPROTO_IP, libc::IP_RECVERR, 1)?;
        set_option(socket, libc::IPPROTO_IP, libc::IP_TTL, hops)?;
    } else {
        set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1)?;
        set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, hops)?;
    }
    socket.connect(address)?;
    socket.send(b"who")?;
    socket.recv(&mut [0; 16])
}
