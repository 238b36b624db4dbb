//! Multipath TCP: the subflow is translated like any TCP connection.

use sidestep_tests::{
    cluster,
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
