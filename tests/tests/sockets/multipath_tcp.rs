//! Multipath TCP: the subflow is translated like any TCP connection.

use std::time::{Duration, Instant};

use aya::maps::{Array, Map, MapData};
use proxy_common::Peer;
use sidestep_tests::{
    Lab, cluster,
    cluster::{HTTP_PORT, at, service},
    skip,
    sockets::mptcp,
    traffic::{Conversation, PATIENCE},
};
use socket2::Domain;

/// FE-8. The peer's name is the one thing that differs: the kernel runs getpeername on the socket above the subflow,
/// which has no record, so the program sees the pod.
#[test]
fn a_multipath_socket_reaches_the_endpoint() {
    let cluster = cluster!(1);
    cluster.serve("web", &service("web", &["10.96.0.10", "fd00:10:96::10"])).expect("manifests");
    let _agent = cluster.lab.agent().expect("an agent");
    let pod = &cluster.backends[0].place;
    for (vip, address) in
        [(at("10.96.0.10:80"), pod.addresses()[0]), (at("[fd00:10:96::10]:80"), pod.addresses()[1])]
    {
        let socket = match cluster.client.run(|| mptcp(Domain::for_address(vip))) {
            Ok(socket) => socket,
            Err(error) => skip!("this kernel has no MPTCP: {error}"),
        };
        cluster.client.run(|| {
            socket.set_read_timeout(Some(PATIENCE)).expect("a limit");
            socket.set_write_timeout(Some(PATIENCE)).expect("a limit");
            socket.connect(&vip.into()).expect("connect");
            let mut conversation = Conversation::over(socket.into()).expect("a conversation");
            assert_eq!(conversation.ask().expect("an answer").server, "pod-0");
            let peer = conversation.peer().expect("a peer");
            assert!(peer == vip || peer == (address, HTTP_PORT).into(), "{peer}");
        });
    }
}

/// The kernel gives a subflow's element of PEERS to nobody back; the agent does. A socket that lives keeps its own.
#[test]
fn elements_of_closed_subflows_are_freed() {
    let cluster = cluster!(1);
    cluster.serve("web", &service("web", &["10.96.0.10"])).expect("manifests");
    let mut agent = cluster.lab.agent().expect("an agent");
    let vip = at("10.96.0.10:80");
    let mut living = cluster.client.run(|| Conversation::with(vip)).expect("a connection");
    for _ in 0..8 {
        let socket = match cluster.client.run(|| mptcp(Domain::for_address(vip))) {
            Ok(socket) => socket,
            Err(error) => skip!("this kernel has no MPTCP: {error}"),
        };
        cluster.client.run(|| socket.connect(&vip.into())).expect("connect");
    }
    let before = owners(&cluster.lab);
    if before == 1 {
        skip!("this kernel runs the release hook for subflows");
    }
    agent.kill().expect("the agent dies");
    agent.restart(&cluster.lab).expect("an agent");
    let start = Instant::now();
    while owners(&cluster.lab) > 1 {
        assert!(start.elapsed() < Duration::from_secs(25), "{} of {before} left", owners(&cluster.lab));
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(owners(&cluster.lab), 1, "of the connection that lives");
    assert_eq!(living.peer().expect("a peer"), vip);
    living.ask().expect("an answer");
}

/// How many elements of PEERS have an owner.
fn owners(lab: &Lab) -> usize {
    let map = MapData::from_pin(lab.pin_directory().join("v1/PEERS")).expect("PEERS");
    let peers: Array<_, Peer> = Map::Array(map).try_into().expect("an array");
    peers.iter().filter(|peer| peer.as_ref().is_ok_and(|peer| peer.owner != 0)).count()
}
