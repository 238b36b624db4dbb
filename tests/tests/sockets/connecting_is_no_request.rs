//! `connect()` of a UDP socket sends nothing: programs do it to learn their own address, and resolvers to sort the
//! addresses of a name. It succeeds whatever there is at the Service; only what is sent afterwards may fail.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use sidestep_tests::{
    Place, cluster as new_cluster,
    cluster::{Cluster, at, service, slice},
    traffic::{Asker, canonical, is_refused},
};

/// Longest time until a socket without an endpoint hears of it, and until it reaches one that comes.
const NOTICE: Duration = Duration::from_secs(2);

/// A Service `web` of TCP and UDP, and one without endpoints, where ClusterIPs leave by the uplink.
fn cluster(cluster: &Cluster) {
    cluster.route_services_out().expect("routes");
    cluster.serve("web", &service("web", &["10.96.0.10", "fd00:10:96::10"])).expect("manifests");
    let empty = service("empty", &["10.96.0.99", "fd00:10:96::99"]);
    cluster.lab.manifests().write("empty.yaml", &[&empty]).expect("manifests");
}

/// How often each reason to refuse was counted, as `status` tells it.
fn refusals(cluster: &Cluster) -> serde_json::Value {
    let output = cluster.lab.sidestep(&["status", "--output", "json"]).expect("status runs");
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    status["refusals"].clone()
}

/// The place's address of the family that `vip` is of, when it is not in IPv6 clothes.
fn own_address(place: &Place, vip: SocketAddr) -> IpAddr {
    place.addresses()[usize::from(canonical(vip).is_ipv6())]
}

/// Whether the Service has an endpoint for UDP there.
fn is_served(address: SocketAddr) -> bool {
    address.port() == 53 && ["10.96.0.10", "fd00:10:96::10"].contains(&&*canonical(address).ip().to_string())
}

/// PO-24: at a port that the Service has not, at port 0 and without endpoints; nothing is counted, because nothing
/// was asked for.
#[test]
fn a_udp_connect_tells_the_own_address_whatever_the_service_has() {
    let cluster = new_cluster!(1);
    self::cluster(&cluster);
    let _agent = cluster.lab.agent().expect("an agent");
    let before = refusals(&cluster);
    for place in [&cluster.client, cluster.lab.node()] {
        for address in ["10.96.0.10", "[fd00:10:96::10]", "[::ffff:10.96.0.10]"]
            .into_iter()
            .flat_map(|ip| [0, 1, 53, 80].map(|port| at(&format!("{ip}:{port}"))))
            .chain(["10.96.0.99:53", "[fd00:10:96::99]:53", "[::ffff:10.96.0.99]:53"].map(at))
        {
            place.run(|| {
                let asker = Asker::for_address(address).expect("a socket");
                let who = place.name();
                asker.connect(address).unwrap_or_else(|error| panic!("{address} from {who}: {error}"));
                let local = asker.socket().local_addr().expect("an address");
                // Served, the node's own sockets get its address towards the endpoint: the packets carry that one.
                if who != "node" || !is_served(address) {
                    assert_eq!(canonical(local).ip(), own_address(place, address), "{address} from {who}");
                }
                // Linux itself says that a socket connected to port 0 has no peer.
                if address.port() != 0 {
                    assert_eq!(asker.socket().peer_addr().expect("a peer"), address, "from {who}");
                }
            });
        }
    }
    assert_eq!(refusals(&cluster), before, "nothing was asked for");
}

/// Sends until a call on the socket ends with ECONNREFUSED; anything else that fails is wrong.
fn assert_told_of_no_endpoint(asker: &Asker) {
    let start = Instant::now();
    asker.socket().set_nonblocking(true).expect("non-blocking");
    while start.elapsed() < NOTICE {
        for result in [asker.socket().send(b"anybody?"), asker.socket().recv(&mut [0; 64])] {
            match result {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return,
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}"),
                Ok(_) => {}
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("nobody said within {NOTICE:?} that there is no endpoint");
}

/// Asks the connected peer until it answers; a refusal may have been on its way.
fn assert_reaches(asker: &Asker, server: &str) -> SocketAddr {
    let start = Instant::now();
    asker.socket().set_nonblocking(false).expect("blocking");
    asker.socket().set_read_timeout(Some(Duration::from_millis(50))).expect("a limit");
    loop {
        match asker.ask_peer() {
            Ok((answer, source)) => {
                assert_eq!(answer.server, server);
                return source;
            }
            Err(error) => assert!(
                start.elapsed() < NOTICE
                    && matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionRefused),
                "{error} after {:?}",
                start.elapsed()
            ),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// PO-24, ST-6: what is sent meanwhile is rejected, and the socket is not spoilt by it.
#[test]
fn a_socket_that_was_connected_without_endpoints_reaches_the_one_that_comes() {
    let cluster = new_cluster!(1);
    self::cluster(&cluster);
    let _agent = cluster.lab.agent().expect("an agent");
    let pod = &cluster.backends[0].place;
    let vips = ["10.96.0.99:53", "[fd00:10:96::99]:53", "[::ffff:10.96.0.99]:53"].map(at);
    let sockets: Vec<(SocketAddr, SocketAddr, Asker)> = [&cluster.client, cluster.lab.node()]
        .into_iter()
        .flat_map(|place| {
            vips.map(|vip| {
                place.run(|| {
                    let asker = Asker::for_address(vip).expect("a socket");
                    asker.connect(vip).unwrap_or_else(|error| panic!("{vip}: {error}"));
                    assert_told_of_no_endpoint(&asker);
                    (vip, asker.socket().local_addr().expect("an address"), asker)
                })
            })
        })
        .collect();
    let (v4, v6) = (slice("empty").ready(pod.v4), slice("empty").ready(pod.v6));
    cluster.lab.manifests().write("empty-endpoints.yaml", &[&v4, &v6]).expect("manifests");
    for (vip, local, asker) in &sockets {
        assert_eq!(assert_reaches(asker, "pod-0"), *vip);
        assert_eq!(asker.socket().peer_addr().expect("a peer"), *vip);
        assert_eq!(asker.socket().local_addr().expect("an address"), *local, "{vip}");
    }
}

/// PO-1, PO-13: a datagram to nothing is a request, and refused as such: at once, and counted.
#[test]
fn a_datagram_to_nothing_is_refused_at_once_and_counted() {
    let cluster = new_cluster!(1);
    self::cluster(&cluster);
    let _agent = cluster.lab.agent().expect("an agent");
    for vip in ["10.96.0.99:53", "[fd00:10:96::99]:53", "10.96.0.10:1", "[fd00:10:96::10]:1"].map(at) {
        let before = refusals(&cluster);
        cluster.client.run(|| {
            let start = Instant::now();
            let result = Asker::for_address(vip).and_then(|asker| asker.ask(vip));
            assert!(is_refused(&result), "{vip}: {result:?}");
            assert!(start.elapsed() < Duration::from_millis(500), "{vip}: {:?}", start.elapsed());
        });
        assert_ne!(refusals(&cluster), before, "{vip}");
    }
}

/// A socket that is connected and then disconnected may ask somebody else; what it was connected to is over.
#[test]
fn a_socket_that_was_connected_without_endpoints_may_connect_elsewhere() {
    let cluster = new_cluster!(1);
    self::cluster(&cluster);
    let _agent = cluster.lab.agent().expect("an agent");
    cluster.client.run(|| {
        for (nothing, vip) in [
            (at("10.96.0.99:53"), at("10.96.0.10:53")),
            (at("[fd00:10:96::99]:53"), at("[fd00:10:96::10]:53")),
        ] {
            let asker = Asker::for_address(vip).expect("a socket");
            asker.connect(nothing).unwrap_or_else(|error| panic!("{nothing}: {error}"));
            asker.connect(vip).expect("connect");
            assert_eq!(asker.ask_peer().expect("an answer").1, vip);
            asker.connect(nothing).unwrap_or_else(|error| panic!("{nothing}: {error}"));
            assert_told_of_no_endpoint(&asker);
            assert_eq!(asker.socket().peer_addr().expect("a peer"), nothing);
        }
    });
}
