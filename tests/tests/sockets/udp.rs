//! UDP through a ClusterIP: connected or not, in every mixture of families that Linux allows.

use sidestep_tests::{
    cluster,
    cluster::{Cluster, at, service, spread},
    eventually, skip,
    traffic::{Asker, is_refused},
};

fn dns(cluster: &Cluster) -> sidestep_tests::Agent {
    cluster.serve("dns", &service("dns", &["10.96.0.53", "fd00:10:96::53"])).expect("manifests");
    cluster.lab.agent().expect("an agent")
}

/// A resolver drops answers from an address that it did not ask: recvfrom has to give the VIP.
#[test]
fn an_unconnected_socket_sees_the_vip_as_the_source() {
    let cluster = cluster!(3);
    let _agent = dns(&cluster);
    for vip in [at("10.96.0.53:53"), at("[fd00:10:96::53]:53")] {
        let answers = cluster.client.run(|| {
            spread(60, || {
                let (answer, source) = Asker::for_address(vip)?.ask(vip)?;
                assert_eq!(source, vip);
                assert!(cluster.client.addresses().contains(&answer.client.ip()), "{answer:?}");
                std::io::Result::Ok(answer.server)
            })
        });
        assert_eq!(answers.len(), 3, "each socket chooses anew: {answers:?}");
    }
}

/// A connected socket: send and recv reach no hook, recvfrom and getpeername do.
#[test]
fn a_connected_socket_sees_the_vip_as_its_peer() {
    let cluster = cluster!(3);
    let _agent = dns(&cluster);
    for vip in [at("10.96.0.53:53"), at("[fd00:10:96::53]:53")] {
        cluster.client.run(|| {
            let asker = Asker::for_address(vip).expect("a socket");
            asker.connect(vip).expect("connect");
            assert_eq!(asker.socket().peer_addr().expect("a peer"), vip);
            let (first, source) = asker.ask_peer().expect("an answer");
            assert_eq!(source, vip);
            for _ in 0..20 {
                let (answer, source) = asker.ask_peer().expect("an answer");
                assert_eq!((&answer.server, source), (&first.server, vip));
            }
        });
    }
}

/// A socket of `AF_INET6` that asks `::ffff:a.b.c.d`: sendto runs sendmsg4, recvfrom runs recvmsg6.
#[test]
fn a_v4_mapped_socket_sees_the_mapped_vip_as_the_source() {
    let cluster = cluster!(2);
    let _agent = dns(&cluster);
    let vip = at("[::ffff:10.96.0.53]:53");
    cluster.client.run(|| {
        let asker = Asker::v6().expect("a socket");
        for _ in 0..10 {
            let (_, source) = asker.ask(vip).expect("an answer");
            assert_eq!(source, vip);
        }
        // The same socket asks in IPv6 as well; each answer has its own VIP as the source.
        let v6 = at("[fd00:10:96::53]:53");
        assert_eq!(asker.ask(v6).expect("an answer").1, v6);
        assert_eq!(asker.ask(vip).expect("an answer").1, vip);
    });
}

/// The same, connected: connect runs connect6, and getpeername6 gives the mapped VIP.
#[test]
fn a_connected_v4_mapped_socket_sees_the_mapped_vip() {
    let cluster = cluster!(2);
    let _agent = dns(&cluster);
    let vip = at("[::ffff:10.96.0.53]:53");
    cluster.client.run(|| {
        let asker = Asker::v6().expect("a socket");
        asker.connect(vip).expect("connect");
        assert_eq!(asker.socket().peer_addr().expect("a peer"), vip);
        assert_eq!(asker.ask_peer().expect("an answer").1, vip);
    });
}

/// `connect` with an address of `AF_INET` on a socket of `AF_INET6` runs connect4; what is read later runs the hooks of IPv6.
#[test]
fn an_ipv6_socket_connects_with_an_ipv4_address() {
    let cluster = cluster!(2);
    let _agent = dns(&cluster);
    cluster.client.run(|| {
        let asker = Asker::v6().expect("a socket");
        if let Err(error) = asker.connect(at("10.96.0.53:53")) {
            skip!("this kernel does not connect so: {error}");
        }
        let mapped = at("[::ffff:10.96.0.53]:53");
        assert_eq!(asker.socket().peer_addr().expect("a peer"), mapped);
        assert_eq!(asker.ask_peer().expect("an answer").1, mapped);
    });
}

/// A datagram that names the Service on a socket that is connected to it goes to the connected endpoint: the
/// kernel takes answers from nobody else.
#[test]
fn a_connected_socket_may_name_its_service_again() {
    let cluster = cluster!(3);
    let _agent = dns(&cluster);
    let vip = at("10.96.0.53:53");
    cluster.client.run(|| {
        for _ in 0..20 {
            let asker = Asker::for_address(vip).expect("a socket");
            asker.connect(vip).expect("connect");
            let (first, _) = asker.ask_peer().expect("an answer");
            let (again, source) = asker.ask(vip).expect("an answer, although the socket is connected");
            assert_eq!((again.server, source), (first.server, vip));
        }
    });
}

/// A UDP connect is no request: a socket may be connected to a Service without endpoints, and back.
#[test]
fn a_connect_to_nothing_and_back_keeps_the_names_of_peers() {
    let cluster = cluster!(1);
    cluster.route_services_out().expect("routes");
    let _agent = dns(&cluster);
    cluster.lab.manifests().write("empty.yaml", &[&service("empty", &["10.96.0.99"])]).expect("manifests");
    let (vip, empty) = (at("10.96.0.53:53"), at("10.96.0.99:53"));
    eventually("the Service without endpoints is there", || {
        cluster.client.run(|| is_refused(&Asker::for_address(empty).and_then(|asker| asker.ask(empty))))
    });
    cluster.client.run(|| {
        let asker = Asker::for_address(vip).expect("a socket");
        asker.connect(vip).expect("connect");
        assert_eq!(asker.ask_peer().expect("an answer").1, vip);
        asker.connect(empty).expect("connect");
        assert_eq!(asker.socket().peer_addr().expect("a peer"), empty);
        asker.connect(vip).expect("connect");
        assert_eq!(asker.socket().peer_addr().expect("a peer"), vip);
        assert_eq!(asker.ask_peer().expect("an answer").1, vip);
    });
}
