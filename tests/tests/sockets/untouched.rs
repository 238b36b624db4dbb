//! What is no Service is none of our business.

use std::{net::SocketAddr, time::Duration};

use sidestep_tests::{
    cluster,
    cluster::{DNS_PORT, HTTP_PORT, at, service},
    traffic::{Asker, Conversation},
};

/// A pod's own address is reached as if Sidestep were not there, also when the pod is an endpoint.
#[test]
fn addresses_of_no_service_are_left_alone() {
    let cluster = cluster!(1);
    cluster.serve("web", &service("web", &["10.96.0.10"])).expect("manifests");
    let _agent = cluster.lab.agent().expect("an agent");
    let pod = &cluster.backends[0].place;
    for address in pod.addresses() {
        cluster.client.run(|| {
            let (tcp, udp) = ((address, HTTP_PORT).into(), (address, DNS_PORT).into());
            let mut conversation = Conversation::with(tcp).expect("a connection");
            assert_eq!(conversation.ask().expect("an answer").local, tcp);
            assert_eq!(conversation.peer().expect("a peer"), tcp);
            let asker = Asker::for_address(udp).expect("a socket");
            assert_eq!(asker.ask(udp).expect("an answer").1, udp);
            asker.connect(udp).expect("connect");
            assert_eq!(asker.ask_peer().expect("an answer").1, udp);
            assert_eq!(asker.socket().peer_addr().expect("a peer"), udp);
        });
    }
}

/// A connected UDP socket may send elsewhere in between, and knows its peer afterwards.
#[test]
fn sending_to_no_service_does_not_clear_a_connected_peer() {
    let cluster = cluster!(2);
    cluster.lab.manifests().write("dns.yaml", &[&service("dns", &["10.96.0.53"])]).expect("manifests");
    cluster.endpoints("dns", &cluster.slice_v4("dns", 0..1)).expect("manifests");
    let _agent = cluster.lab.agent().expect("an agent");
    let vip = at("10.96.0.53:53");
    let stranger = &cluster.backends[1];
    cluster.client.run(|| {
        let asker = Asker::v4().expect("a socket");
        asker.connect(vip).expect("connect");
        let seen = stranger.udp.requests();
        let elsewhere = (stranger.place.v4, DNS_PORT);
        asker.socket().send_to(b"hello", elsewhere).expect("sendto");
        assert_eq!(asker.socket().peer_addr().expect("a peer"), vip);
        let (answer, source) = asker.ask_peer().expect("an answer");
        assert_eq!((answer.server.as_str(), source), ("pod-0", vip));
        sidestep_tests::eventually("the stranger got the datagram", || stranger.udp.requests() > seen);
    });
}

/// One socket, answers from a Service and from a pod itself: each has its own source.
#[test]
fn a_socket_asks_a_service_and_a_pod_by_turns() {
    let cluster = cluster!(2);
    cluster.lab.manifests().write("dns.yaml", &[&service("dns", &["10.96.0.53"])]).expect("manifests");
    cluster.endpoints("dns", &cluster.slice_v4("dns", 0..1)).expect("manifests");
    let _agent = cluster.lab.agent().expect("an agent");
    let direct = (cluster.backends[1].place.v4, DNS_PORT).into();
    cluster.client.run(|| {
        let asker = Asker::v4().expect("a socket");
        for address in [at("10.96.0.53:53"), direct, at("10.96.0.53:53"), direct] {
            assert_eq!(asker.ask(address).expect("an answer").1, address);
        }
    });
}

/// A socket that is connected to a pod itself may ask a Service of which that pod is the endpoint: it is the pod's still,
/// by name, and when the Service's endpoint goes (ST-5).
#[test]
fn asking_a_service_does_not_change_whom_a_socket_is_connected_to() {
    let cluster = cluster!(2);
    let dns = service("dns", &["10.96.0.53", "fd00:10:96::53"]);
    let endpoint = |backend: usize| {
        let (v4, v6) = (cluster.slice_v4("dns", [backend]), cluster.slice_v6("dns", [backend]));
        cluster.lab.manifests().write("dns.yaml", &[&dns, &v4, &v6]).expect("manifests");
    };
    endpoint(0);
    let _agent = cluster.lab.agent().expect("an agent");
    let pod = &cluster.backends[0].place;
    let cases: [(_, SocketAddr); 3] = [
        ("10.96.0.53:53", (pod.v4, DNS_PORT).into()),
        ("[fd00:10:96::53]:53", (pod.v6, DNS_PORT).into()),
        ("[::ffff:10.96.0.53]:53", (pod.v4.to_ipv6_mapped(), DNS_PORT).into()),
    ];
    let sockets = cases.map(|(vip, direct)| {
        cluster.client.run(|| {
            let asker = Asker::for_address(direct).expect("a socket");
            asker.connect(direct).expect("connect");
            asker.socket().send_to(b"past the connection", at(vip)).expect("sendto");
            assert_eq!(asker.socket().peer_addr().expect("a peer"), direct);
            assert_eq!(asker.ask_peer().expect("an answer").0.server, "pod-0");
            asker
        })
    });
    endpoint(1);
    // Longer than anything that follows the change.
    std::thread::sleep(Duration::from_millis(2500));
    for (asker, (vip, direct)) in sockets.iter().zip(cases) {
        assert_eq!(asker.ask_peer().expect("an answer").0.server, "pod-0", "after {vip}");
        assert_eq!(asker.socket().peer_addr().expect("a peer"), direct, "after {vip}");
    }
}
