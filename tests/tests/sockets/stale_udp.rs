//! A connected UDP socket whose endpoint is gone is connected to a living one: no hook sees what it sends, so the agent
//! does it. Exactly such sockets, in whatever namespace they are.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use sidestep_tests::{
    Lab, Place,
    cluster::{Cluster, DNS_PORT, at, service, slice},
    eventually,
    manifest::{Conditions, EndpointSlice},
    pace::within,
    traffic::{Asker, Conversation},
};

/// Longest time that a client may notice of the replacement of its endpoint.
const NOTICE: Duration = Duration::from_secs(1);
/// An answer that takes longer is lost.
const UNDER_WAY: Duration = Duration::from_millis(200);
/// Long enough for every search that follows a change: what is still there then stays.
const SETTLED: Duration = Duration::from_millis(2500);

/// A Service `dns` in both families whose endpoints are the backends that `endpoints` names later.
fn dns(backends: usize) -> Option<Cluster> {
    if let Some(reason) = sidestep_tests::skip::missing() {
        sidestep_tests::skip::announce(&reason);
        return None;
    }
    let cluster = Cluster::new(Lab::new().expect("a lab"), backends).expect("a cluster");
    let dns = service("dns", &["10.96.0.53", "fd00:10:96::53"]);
    cluster.lab.manifests().write("dns.yaml", &[&dns]).expect("manifests");
    endpoints(&cluster, 0);
    Some(cluster)
}

/// Makes this backend the only endpoint, in both families.
fn endpoints(cluster: &Cluster, backend: usize) {
    let (v4, v6) = (cluster.slice_v4("dns", [backend]), cluster.slice_v6("dns", [backend]));
    cluster.lab.manifests().write("dns-endpoints.yaml", &[&v4, &v6]).expect("manifests");
}

/// A connected socket at `place` that has got an answer from `server`.
fn connected(place: &Place, address: SocketAddr, server: &str) -> Asker {
    place.run(|| {
        let asker = Asker::for_address(address).expect("a socket");
        asker.connect(address).expect("connect");
        assert_eq!(asker.ask_peer().expect("an answer").0.server, server);
        asker
    })
}

/// Waits until the socket talks to `server`. Its owner sees no error, the same peer and the same port meanwhile. One answer
/// may be lost, that of the old endpoint which is under way when the socket moves.
fn assert_moves(asker: &Asker, server: &str, since: Instant) {
    asker.socket().set_read_timeout(Some(within(UNDER_WAY))).expect("a limit");
    let mut lost = 0;
    let names = || (asker.socket().local_addr().ok(), asker.socket().peer_addr().ok());
    let before = names();
    loop {
        let (answer, source) = match asker.ask_peer() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && lost == 0 => {
                lost += 1;
                continue;
            }
            answer => answer.expect("an answer"),
        };
        assert_eq!((Some(source), names()), (before.1, before));
        if answer.server == server {
            println!("moved {:?} after the change", since.elapsed());
            return;
        }
        assert!(since.elapsed() < within(NOTICE), "still {} after {:?}", answer.server, since.elapsed());
    }
}

/// Waits until a read of the socket ends with ECONNABORTED.
fn assert_closed(asker: &Asker, since: Instant) {
    let error = loop {
        match asker.socket().recv(&mut [0; 64]) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => break error,
            _ => assert!(since.elapsed() < within(SETTLED), "open after {:?}", since.elapsed()),
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted, "{error}");
}

/// ST-5: a resolver with a connected socket and one without notice nothing of the replacement of their endpoint; nor do a
/// client of the pod itself, and a TCP connection (ST-4), which stay.
#[test]
fn clients_survive_the_replacement_of_their_endpoint_within_a_second() {
    let Some(cluster) = dns(2) else { return };
    let _agent = cluster.lab.agent().expect("an agent");
    let (vip, pod) = (at("10.96.0.53:53"), SocketAddr::from((cluster.backends[0].place.v4, DNS_PORT)));
    let resolver = connected(&cluster.client, vip, "pod-0");
    let direct = connected(&cluster.client, pod, "pod-0");
    let unconnected = cluster.client.run(Asker::v4).expect("a socket");
    assert_eq!(unconnected.ask(vip).expect("an answer").0.server, "pod-0");
    let mut conversation =
        cluster.client.run(|| Conversation::with(at("10.96.0.53:80"))).expect("a connection");
    conversation.ask().expect("an answer");

    endpoints(&cluster, 1);
    let changed = Instant::now();
    assert_moves(&resolver, "pod-1", changed);
    assert_eq!(unconnected.ask(vip).expect("an answer").0.server, "pod-1");

    std::thread::sleep(SETTLED);
    for (asker, server) in [(&direct, "pod-0"), (&resolver, "pod-1")] {
        assert_eq!(asker.ask_peer().expect("it stays").0.server, server);
    }
    assert_eq!(conversation.ask().expect("ST-4: TCP goes on").server, "pod-0");
}

/// ST-5 in several namespaces at once, the node's among them, in both families and in IPv4's IPv6 clothes.
#[test]
fn sockets_move_in_every_namespace_and_family() {
    let Some(cluster) = dns(2) else { return };
    let _agent = cluster.lab.agent().expect("an agent");
    let second = cluster.lab.pod("second").expect("a pod");
    let (v4, v6, mapped) = (at("10.96.0.53:53"), at("[fd00:10:96::53]:53"), at("[::ffff:10.96.0.53]:53"));
    let places = [&cluster.client, &second, cluster.lab.node()];
    let sockets: Vec<Asker> =
        places.iter().flat_map(|place| [v4, v6, mapped].map(|vip| connected(place, vip, "pod-0"))).collect();
    endpoints(&cluster, 1);
    let changed = Instant::now();
    for socket in &sockets {
        assert_moves(socket, "pod-1", changed);
    }
}

/// ST-10: an endpoint that leaves the set but serves keeps its sockets; they move when it stops serving.
#[test]
fn an_endpoint_that_drains_keeps_its_sockets() {
    let Some(cluster) = dns(2) else { return };
    let _agent = cluster.lab.agent().expect("an agent");
    let vip = at("10.96.0.53:53");
    let resolver = connected(&cluster.client, vip, "pod-0");
    let with_old = |conditions| -> EndpointSlice {
        let [old, new] = [&cluster.backends[0].place, &cluster.backends[1].place];
        slice("dns").endpoint(old.v4, conditions).ready(new.v4)
    };
    cluster.endpoints("dns", &with_old(Conditions::DRAINING)).expect("manifests");
    eventually("new sockets avoid the endpoint that drains", || {
        cluster.client.run(|| Asker::v4()?.ask(vip)).expect("an answer").0.server == "pod-1"
    });
    std::thread::sleep(SETTLED);
    assert_eq!(resolver.ask_peer().expect("nobody closed it").0.server, "pod-0");
    cluster.endpoints("dns", &with_old(Conditions::GONE)).expect("manifests");
    assert_moves(&resolver, "pod-1", Instant::now());
}

/// ST-5: when the whole Service goes and no route leads to its address, its sockets cannot be connected again: they are
/// closed. Only they: another Service has the same pod behind it.
#[test]
fn sockets_that_cannot_be_connected_again_are_closed_and_no_others() {
    let Some(cluster) = dns(1) else { return };
    cluster.serve("other", &service("other", &["10.96.0.54"])).expect("manifests");
    let _agent = cluster.lab.agent().expect("an agent");
    let resolver = connected(&cluster.client, at("10.96.0.53:53"), "pod-0");
    let other = connected(&cluster.client, at("10.96.0.54:53"), "pod-0");
    cluster.lab.manifests().remove("dns.yaml").expect("removal");
    assert_closed(&resolver, Instant::now());
    std::thread::sleep(SETTLED);
    assert_eq!(other.ask_peer().expect("nobody closed it").0.server, "pod-0");
}

/// ST-5: what went while no agent ran is found by the next one.
#[test]
fn sockets_move_whose_endpoint_went_while_no_agent_ran() {
    let Some(cluster) = dns(2) else { return };
    let mut agent = cluster.lab.agent().expect("an agent");
    let vip = at("10.96.0.53:53");
    let resolver = connected(&cluster.client, vip, "pod-0");
    agent.kill().expect("the agent dies");
    endpoints(&cluster, 1);
    assert_eq!(resolver.ask_peer().expect("nobody is there to close it").0.server, "pod-0");
    agent.restart(&cluster.lab).expect("an agent");
    assert_moves(&resolver, "pod-1", Instant::now());
    let kept = connected(&cluster.client, vip, "pod-1");
    agent.stop().expect("the agent ends");
    agent.restart(&cluster.lab).expect("an agent");
    std::thread::sleep(SETTLED);
    assert_eq!(kept.ask_peer().expect("nobody closed it").0.server, "pod-1");
}

/// Sockets that are connected at the very moment of the change are found too.
#[test]
fn a_connect_in_the_middle_of_the_change_is_not_missed() {
    let Some(cluster) = dns(2) else { return };
    let _agent = cluster.lab.agent().expect("an agent");
    let vip = at("10.96.0.53:53");
    for backend in [1, 0, 1, 0] {
        let sockets = std::thread::scope(|scope| {
            let connecting = scope.spawn(|| {
                cluster.client.run(|| {
                    let start = Instant::now();
                    let mut sockets = Vec::new();
                    while start.elapsed() < Duration::from_millis(300) {
                        let asker = Asker::v4().expect("a socket");
                        asker.connect(vip).expect("connect");
                        sockets.push(asker);
                        std::thread::sleep(Duration::from_micros(300));
                    }
                    sockets
                })
            });
            std::thread::sleep(Duration::from_millis(100));
            endpoints(&cluster, backend);
            connecting.join().expect("the client")
        });
        std::thread::sleep(SETTLED);
        for socket in &sockets {
            let answer = socket.ask_peer().expect("an answer").0;
            assert_eq!(answer.server, format!("pod-{backend}"), "a socket was missed");
        }
        println!("{} sockets", sockets.len());
        assert!(sockets.len() > 100);
    }
}
