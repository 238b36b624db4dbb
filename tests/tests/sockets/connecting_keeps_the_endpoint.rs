//! A UDP socket has one endpoint for a Service, however it asks: DTLS and QUIC begin with a datagram and connect then.

use std::net::Ipv4Addr;

use sidestep_tests::{
    cluster,
    cluster::{at, service},
    eventually,
    sockets::disconnect,
    traffic::Asker,
};

/// What is between chance and a promise: of so many endpoints another one would be drawn in three of four cases.
const BACKENDS: usize = 4;
const SOCKETS: usize = 100;

/// With `sendto` first, then connected to whoever answered.
#[test]
fn a_socket_that_connects_after_it_asked_keeps_its_endpoint() {
    let cluster = cluster!(BACKENDS);
    cluster.serve("dns", &service("dns", &["10.96.0.53", "fd00:10:96::53"])).expect("manifests");
    let _agent = cluster.lab.agent().expect("an agent");
    for vip in ["10.96.0.53:53", "[fd00:10:96::53]:53", "[::ffff:10.96.0.53]:53"].map(at) {
        let moved = cluster.client.run(|| {
            (0..SOCKETS)
                .filter(|_| {
                    let asker = Asker::for_address(vip).expect("a socket");
                    let (first, source) = asker.ask(vip).expect("an answer");
                    asker.connect(source).expect("connect");
                    let (then, source) = asker.ask_peer().expect("an answer");
                    assert_eq!(source, vip);
                    first.server != then.server
                })
                .count()
        });
        assert_eq!(moved, 0, "of {SOCKETS} sockets that asked {vip} went to another endpoint");
    }
}

/// With `connect` to where it is connected already.
#[test]
fn a_socket_that_connects_again_keeps_its_endpoint() {
    let cluster = cluster!(BACKENDS);
    cluster.serve("dns", &service("dns", &["10.96.0.53", "fd00:10:96::53"])).expect("manifests");
    let _agent = cluster.lab.agent().expect("an agent");
    for vip in ["10.96.0.53:53", "[fd00:10:96::53]:53", "[::ffff:10.96.0.53]:53"].map(at) {
        let moved = cluster.client.run(|| {
            (0..SOCKETS)
                .filter(|_| {
                    let asker = Asker::for_address(vip).expect("a socket");
                    let ask = || {
                        asker.connect(vip).expect("connect");
                        let (answer, source) = asker.ask_peer().expect("an answer");
                        assert_eq!(source, vip);
                        answer.server
                    };
                    ask() != ask()
                })
                .count()
        });
        assert_eq!(moved, 0, "of {SOCKETS} sockets connected to {vip} went to another endpoint");
    }
}

/// With another Service in between, of which the socket got the same endpoint or another one.
#[test]
fn a_socket_that_was_connected_elsewhere_meanwhile_keeps_its_endpoint() {
    let cluster = cluster!(2);
    for (name, ips) in [("dns", ["10.96.0.53", "fd00:10:96::53"]), ("time", ["10.96.0.54", "fd00:10:96::54"])]
    {
        cluster.serve(name, &service(name, &ips)).expect("manifests");
    }
    let _agent = cluster.lab.agent().expect("an agent");
    for [vip, other] in [
        ["10.96.0.53:53", "10.96.0.54:53"],
        ["[fd00:10:96::53]:53", "[fd00:10:96::54]:53"],
        ["[::ffff:10.96.0.53]:53", "[::ffff:10.96.0.54]:53"],
    ] {
        let moved = cluster.client.run(|| {
            (0..SOCKETS)
                .filter(|_| {
                    let asker = Asker::for_address(at(vip)).expect("a socket");
                    let [first, _, then] = [vip, other, vip].map(|peer| {
                        asker.connect(at(peer)).expect("connect");
                        let (answer, source) = asker.ask_peer().expect("an answer");
                        assert_eq!(source, at(peer));
                        answer.server
                    });
                    first != then
                })
                .count()
        });
        assert_eq!(moved, 0, "of {SOCKETS} sockets connected to {vip} went to another endpoint");
    }
}

/// The other way round: connected first, then disconnected, and `sendto` again. From a port of its own: the kernel takes
/// one that nobody asked for away together with the peer.
#[test]
fn a_socket_that_asks_after_it_was_connected_keeps_its_endpoint() {
    let cluster = cluster!(BACKENDS);
    cluster.serve("dns", &service("dns", &["10.96.0.53"])).expect("manifests");
    let _agent = cluster.lab.agent().expect("an agent");
    let vip = at("10.96.0.53:53");
    let moved = cluster.client.run(|| {
        (0..SOCKETS)
            .zip(20_000..)
            .filter(|(_, port)| {
                let asker = Asker::bound_to((Ipv4Addr::UNSPECIFIED, *port).into()).expect("a socket");
                asker.connect(vip).expect("connect");
                let (first, _) = asker.ask_peer().expect("an answer");
                disconnect(asker.socket()).expect("disconnect");
                let (then, source) = asker.ask(vip).expect("an answer");
                assert_eq!(source, vip);
                first.server != then.server
            })
            .count()
    });
    assert_eq!(moved, 0, "of {SOCKETS} sockets went to another endpoint");
}

/// ST-5: kept only while it serves.
#[test]
fn a_socket_that_connects_after_its_endpoint_went_gets_another_one() {
    let cluster = cluster!(2);
    cluster.lab.manifests().write("dns.yaml", &[&service("dns", &["10.96.0.53"])]).expect("manifests");
    cluster.endpoints("dns", &cluster.slice_v4("dns", [0])).expect("manifests");
    let _agent = cluster.lab.agent().expect("an agent");
    let vip = at("10.96.0.53:53");
    cluster.client.run(|| {
        let [asked, connected] = [(); 2].map(|()| Asker::v4().expect("a socket"));
        assert_eq!(asked.ask(vip).expect("an answer").0.server, "pod-0");
        connected.connect(vip).expect("connect");
        assert_eq!(connected.ask_peer().expect("an answer").0.server, "pod-0");
        cluster.endpoints("dns", &cluster.slice_v4("dns", [1])).expect("manifests");
        eventually("the new endpoint is there", || {
            Asker::v4().and_then(|asker| asker.ask(vip)).expect("an answer").0.server == "pod-1"
        });
        for asker in [asked, connected] {
            asker.connect(vip).expect("connect");
            assert_eq!(asker.ask_peer().expect("an answer").0.server, "pod-1");
        }
    });
}
