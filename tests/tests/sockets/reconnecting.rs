//! One socket, several peers: what a socket remembers is never a lie.

use std::net::SocketAddr;

use sidestep_tests::{
    cluster,
    cluster::{DNS_PORT, HTTP_PORT, at, service, slice},
    sockets::disconnect,
    traffic::{Asker, Conversation, PATIENCE, connect, is_refused},
};
use socket2::{Domain, Socket, Type};

/// After `AF_UNSPEC` the socket may connect to the very pod that it was translated to; that is the peer then.
#[test]
fn a_udp_socket_that_was_disconnected_names_its_new_peer() {
    let cluster = cluster!(1);
    cluster.serve("dns", &service("dns", &["10.96.0.53", "fd00:10:96::53"])).expect("manifests");
    let _agent = cluster.lab.agent().expect("an agent");
    let pod = &cluster.backends[0].place;
    let cases =
        [(at("10.96.0.53:53"), (pod.v4, 5300).into()), (at("[fd00:10:96::53]:53"), (pod.v6, 5300).into())];
    for (vip, direct) in cases {
        cluster.client.run(|| {
            let asker = Asker::for_address(vip).expect("a socket");
            asker.connect(vip).expect("connect");
            disconnect(asker.socket()).expect("disconnect");
            asker.connect(direct).expect("connect");
            assert_eq!(asker.socket().peer_addr().expect("a peer"), direct);
            assert_eq!(asker.ask_peer().expect("an answer").1, direct);
            // And back, without AF_UNSPEC between.
            asker.connect(vip).expect("connect");
            assert_eq!(asker.socket().peer_addr().expect("a peer"), vip);
            assert_eq!(asker.ask_peer().expect("an answer").1, vip);
            // Disconnected, it has no peer at all.
            disconnect(asker.socket()).expect("disconnect");
            assert!(asker.socket().peer_addr().is_err());
            assert_eq!(asker.ask(vip).expect("an answer").1, vip);
        });
    }
}

/// A record of the connected peer does not outlive the connection: `AF_UNSPEC` runs no hook, so it has to be checked.
#[test]
fn a_udp_socket_that_was_disconnected_sees_the_true_source() {
    let cluster = cluster!(1);
    for (name, ip) in [("one", "10.96.0.1"), ("two", "10.96.0.2")] {
        cluster.serve(name, &service(name, &[ip])).expect("manifests");
    }
    let _agent = cluster.lab.agent().expect("an agent");
    let direct = (cluster.backends[0].place.v4, DNS_PORT).into();
    cluster.client.run(|| {
        for next in [direct, at("10.96.0.2:53")] {
            let asker = Asker::v4().expect("a socket");
            asker.connect(at("10.96.0.1:53")).expect("connect");
            assert_eq!(asker.ask_peer().expect("an answer").1, at("10.96.0.1:53"));
            disconnect(asker.socket()).expect("disconnect");
            assert_eq!(asker.ask(next).expect("an answer").1, next);
        }
    });
}

/// What a socket asked before it was connected is no matter afterwards.
#[test]
fn a_udp_socket_that_is_connected_sees_its_peer_as_the_source() {
    let cluster = cluster!(1);
    for (name, ip) in [("one", "10.96.0.1"), ("two", "10.96.0.2")] {
        cluster.serve(name, &service(name, &[ip])).expect("manifests");
    }
    let _agent = cluster.lab.agent().expect("an agent");
    let direct = (cluster.backends[0].place.v4, DNS_PORT).into();
    cluster.client.run(|| {
        for peer in [direct, at("10.96.0.2:53")] {
            let asker = Asker::v4().expect("a socket");
            assert_eq!(asker.ask(at("10.96.0.1:53")).expect("an answer").1, at("10.96.0.1:53"));
            asker.connect(peer).expect("connect");
            assert_eq!(asker.socket().peer_addr().expect("a peer"), peer);
            assert_eq!(asker.ask_peer().expect("an answer").1, peer);
        }
    });
}

/// The same for TCP.
#[test]
fn a_tcp_socket_that_was_disconnected_names_its_new_peer() {
    let cluster = cluster!(1);
    cluster.serve("web", &service("web", &["10.96.0.10"])).expect("manifests");
    let _agent = cluster.lab.agent().expect("an agent");
    let vip = at("10.96.0.10:80");
    let direct = SocketAddr::from((cluster.backends[0].place.v4, HTTP_PORT));
    cluster.client.run(|| {
        let stream = connect(vip).expect("a connection");
        assert_eq!(stream.peer_addr().expect("a peer"), vip);
        disconnect(&stream).expect("disconnect");
        let socket = Socket::from(stream);
        socket.connect(&direct.into()).expect("connect");
        let mut conversation = Conversation::over(socket.into()).expect("a conversation");
        assert_eq!(conversation.peer().expect("a peer"), direct);
        assert_eq!(conversation.ask().expect("an answer").server, "pod-0");
    });
}

/// A connect that was refused, by the endpoint or by Sidestep, leaves a socket that can connect elsewhere.
#[test]
fn a_tcp_socket_connects_again_after_a_refusal() {
    let cluster = cluster!(1);
    cluster.serve("web", &service("web", &["10.96.0.10"])).expect("manifests");
    let silent = slice("silent").ready(cluster.client.v4);
    cluster
        .lab
        .manifests()
        .write("silent.yaml", &[&service("silent", &["10.96.0.11"]), &silent])
        .expect("silent");
    cluster.lab.manifests().write("empty.yaml", &[&service("empty", &["10.96.0.12"])]).expect("empty");
    let _agent = cluster.lab.agent().expect("an agent");
    cluster.client.run(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_write_timeout(Some(PATIENCE)).expect("a limit");
        socket.set_read_timeout(Some(PATIENCE)).expect("a limit");
        let refused = socket.connect(&at("10.96.0.11:80").into());
        assert!(is_refused(&refused), "nobody listens at the endpoint: {refused:?}");
        let refused = socket.connect(&at("10.96.0.12:80").into());
        assert!(is_refused(&refused), "no endpoint: {refused:?}");
        socket.connect(&at("10.96.0.10:80").into()).expect("connect");
        let mut conversation = Conversation::over(socket.into()).expect("a conversation");
        assert_eq!(conversation.peer().expect("a peer"), at("10.96.0.10:80"));
        assert_eq!(conversation.ask().expect("an answer").server, "pod-0");
    });
}
