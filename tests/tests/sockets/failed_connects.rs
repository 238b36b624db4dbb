//! A connect that fails after the hook has run leaves the socket with the peer that it had, by name and in deed.
//!
//! In deed with one exception, which is Linux's own: on a connected socket of `AF_INET`, the second and later `send` after
//! a connect that found no route go to where that connect wanted to (`udp_sendmsg` takes the destination from
//! `inet->cork.fl`, in which `__ip4_datagram_connect` left it).

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use sidestep_tests::{
    Agent, cluster as new_cluster,
    cluster::{Cluster, DNS_PORT, at, service, slice},
    traffic::Asker,
};

/// Longest time until a socket is with the new endpoint.
const NOTICE: Duration = Duration::from_secs(2);

/// A Service with the first backend; and one of which the endpoint, in both families, is where no route of the
/// client's leads.
fn start(cluster: &Cluster) -> Agent {
    let manifests = cluster.lab.manifests();
    manifests.write("dns.yaml", &[&service("dns", &["10.96.0.53", "fd00:10:96::53"])]).expect("manifests");
    endpoint(cluster, 0);
    let (v4, v6) = (slice("far").ready([10, 99, 0, 1]), slice("far").ready([0xfd00, 0x99, 0, 0, 0, 0, 0, 1]));
    manifests
        .write("far.yaml", &[&service("far", &["10.96.0.99", "fd00:10:96::99"]), &v4, &v6])
        .expect("manifests");
    cluster
        .client
        .namespace()
        .ip_batch("route add unreachable 10.99.0.0/16\nroute add unreachable fd00:99::/32\n")
        .expect("routes");
    cluster.lab.agent().expect("an agent")
}

fn endpoint(cluster: &Cluster, backend: usize) {
    let (v4, v6) = (cluster.slice_v4("dns", [backend]), cluster.slice_v6("dns", [backend]));
    cluster.lab.manifests().write("dns-endpoints.yaml", &[&v4, &v6]).expect("manifests");
}

/// Where a socket is connected, and what it cannot be connected to then.
fn cases() -> [(SocketAddr, Vec<SocketAddr>); 3] {
    let (far_v4, far_v6) =
        (["10.96.0.99:53", "10.99.0.1:53"].map(at), ["[fd00:10:96::99]:53", "[fd00:99::1]:53"].map(at));
    let mapped = at("[::ffff:10.96.0.99]:53");
    [
        // A broadcast address is refused to whom it was not allowed, after the hook.
        (at("10.96.0.53:53"), [&far_v4[..], &[at("255.255.255.255:53")]].concat()),
        (at("[fd00:10:96::53]:53"), [&far_v6[..], &[mapped]].concat()),
        (at("[::ffff:10.96.0.53]:53"), [&far_v6[..], &[mapped]].concat()),
    ]
}

/// ST-5: with a socket that was connected to the Service before, `getpeername`, `send` and `recvfrom` go on, and it is
/// moved when its endpoint goes.
#[test]
fn a_connect_that_fails_leaves_the_connected_service() {
    let cluster = new_cluster!(2);
    let _agent = start(&cluster);
    let sockets: Vec<(SocketAddr, SocketAddr, Asker)> = cluster.client.run(|| {
        cases()
            .into_iter()
            .flat_map(|(vip, failing)| {
                failing.into_iter().map(move |next| {
                    let asker = Asker::for_address(vip).expect("a socket");
                    asker.connect(vip).expect("connect");
                    assert_eq!(asker.ask_peer().expect("an answer").1, vip);
                    let error = asker.connect(next).expect_err("no way there");
                    assert_ne!(
                        error.kind(),
                        io::ErrorKind::ConnectionRefused,
                        "{next}: the hook let it pass"
                    );
                    assert_eq!(asker.socket().peer_addr().expect("a peer"), vip, "after {next}: {error}");
                    let (answer, source) = asker.ask_peer().expect("an answer");
                    assert_eq!((answer.server.as_str(), source), ("pod-0", vip), "after {next}");
                    (vip, next, asker)
                })
            })
            .collect()
    });
    endpoint(&cluster, 1);
    let changed = Instant::now();
    for (vip, next, asker) in sockets {
        asker.socket().set_read_timeout(Some(Duration::from_millis(50))).expect("a limit");
        loop {
            match asker.ask_peer() {
                Ok((answer, source)) => {
                    assert_eq!(source, vip);
                    if answer.server == "pod-1" {
                        break;
                    }
                }
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{vip}, {next}: {error}"),
            }
            assert!(changed.elapsed() < NOTICE, "{vip}, {next}: it is still with the endpoint that went");
        }
        assert_eq!(asker.socket().peer_addr().expect("a peer"), vip);
    }
}

/// With one that was connected to the pod itself: it is the pod's still, and stays when the Service's endpoint goes.
#[test]
fn a_connect_that_fails_leaves_the_connected_pod() {
    let cluster = new_cluster!(2);
    let _agent = start(&cluster);
    let pod = &cluster.backends[0].place;
    let sockets: Vec<(SocketAddr, Asker)> = cluster.client.run(|| {
        [
            ((pod.v6, DNS_PORT).into(), at("[fd00:10:96::99]:53")),
            ((pod.v4.to_ipv6_mapped(), DNS_PORT).into(), at("[fd00:10:96::99]:53")),
        ]
        .map(|(direct, failing): (SocketAddr, SocketAddr)| {
            let asker = Asker::for_address(direct).expect("a socket");
            asker.connect(direct).expect("connect");
            let error = asker.connect(failing).expect_err("no way there");
            assert_eq!(asker.socket().peer_addr().expect("a peer"), direct, "{error}");
            assert_eq!(asker.ask_peer().expect("an answer").1, direct);
            (direct, asker)
        })
        .into()
    });
    endpoint(&cluster, 1);
    std::thread::sleep(NOTICE);
    for (direct, asker) in sockets {
        let (answer, source) = asker.ask_peer().unwrap_or_else(|error| panic!("{direct}: {error}"));
        assert_eq!((answer.server.as_str(), source), ("pod-0", direct));
    }
}

/// However many Services it asks then: the record of its peer is none that makes room for others.
#[test]
fn a_connect_that_fails_leaves_the_peers_name_for_good() {
    const OTHERS: u8 = 8;
    let cluster = new_cluster!(2);
    for number in 0..OTHERS {
        let name = format!("other-{number}");
        cluster.serve(&name, &service(&name, &[&format!("10.96.1.{number}")])).expect("manifests");
    }
    let _agent = start(&cluster);
    let vip = at("[::ffff:10.96.0.53]:53");
    cluster.client.run(|| {
        let asker = Asker::v6().expect("a socket");
        asker.connect(vip).expect("connect");
        asker.connect(at("[fd00:10:96::99]:53")).expect_err("no way there");
        for number in 0..OTHERS {
            let other = at(&format!("[::ffff:10.96.1.{number}]:53"));
            asker.socket().send_to(b"sendto", other).expect("sendto");
            assert_eq!(asker.socket().peer_addr().expect("a peer"), vip, "after {other}");
        }
    });
}

/// With one that was not connected at all: it has no peer, and what it asks is named as before.
#[test]
fn a_connect_that_fails_leaves_an_unconnected_socket_unconnected() {
    let cluster = new_cluster!(2);
    let _agent = start(&cluster);
    cluster.client.run(|| {
        for (vip, failing) in cases() {
            for next in failing {
                let asker = Asker::for_address(vip).expect("a socket");
                let (first, _) = asker.ask(vip).expect("an answer");
                asker.connect(next).expect_err("no way there");
                assert!(asker.socket().peer_addr().is_err(), "{next}");
                let (answer, source) = asker.ask(vip).expect("an answer");
                assert_eq!((answer.server, source), (first.server, vip), "{next}");
            }
        }
    });
}

/// ST-5, PO-24: with one that was connected while there was no endpoint: it is taken to the one that comes.
#[test]
fn a_connect_that_fails_leaves_a_socket_that_waits_for_an_endpoint() {
    let cluster = new_cluster!(1);
    cluster.route_services_out().expect("routes");
    let late = service("late", &["10.96.0.77", "fd00:10:96::77"]);
    cluster.lab.manifests().write("late.yaml", &[&late]).expect("manifests");
    let _agent = start(&cluster);
    let cases =
        [("[fd00:10:96::77]:53", "[fd00:10:96::99]:53"), ("[::ffff:10.96.0.77]:53", "[fd00:10:96::99]:53")];
    let sockets = cases.map(|(vip, failing)| {
        cluster.client.run(|| {
            let asker = Asker::v6().expect("a socket");
            asker.connect(at(vip)).expect("connect");
            asker.connect(at(failing)).expect_err("no way there");
            assert_eq!(asker.socket().peer_addr().expect("a peer"), at(vip));
            asker.socket().set_read_timeout(Some(Duration::from_millis(50))).expect("a limit");
            asker
        })
    });
    let (v4, v6) = (cluster.slice_v4("late", [0]), cluster.slice_v6("late", [0]));
    cluster.lab.manifests().write("late.yaml", &[&late, &v4, &v6]).expect("manifests");
    let changed = Instant::now();
    for (asker, (vip, _)) in sockets.iter().zip(cases) {
        while !asker.ask_peer().is_ok_and(|(_, source)| source == at(vip)) {
            assert!(changed.elapsed() < NOTICE, "{vip}: it still waits");
        }
    }
}
