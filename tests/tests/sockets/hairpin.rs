//! A pod that is an endpoint of the Service that it asks.

use sidestep_tests::{
    cluster,
    cluster::{at, service},
    traffic::{Asker, Conversation},
};

/// PO-8: it reaches itself, without a rewritten packet: it sees its own address as the client, and the Service as
/// its peer.
#[test]
fn a_pod_reaches_itself_through_its_service() {
    let cluster = cluster!(1);
    cluster.serve("web", &service("web", &["10.96.0.10", "fd00:10:96::10"])).expect("manifests");
    let _agent = cluster.lab.agent().expect("an agent");
    let pod = &cluster.backends[0].place;
    for (own, ip) in pod.addresses().into_iter().zip(["10.96.0.10", "[fd00:10:96::10]"]) {
        let (tcp, udp) = (at(&format!("{ip}:80")), at(&format!("{ip}:53")));
        pod.run(|| {
            let mut conversation = Conversation::with(tcp).expect("a connection");
            let answer = conversation.ask().expect("an answer");
            assert_eq!((answer.server.as_str(), answer.client.ip(), answer.local.ip()), ("pod-0", own, own));
            assert_eq!(conversation.peer().expect("a peer"), tcp);

            let asker = Asker::for_address(udp).expect("a socket");
            let (answer, source) = asker.ask(udp).expect("an answer");
            assert_eq!((answer.client.ip(), source), (own, udp), "unconnected");
            asker.connect(udp).expect("connect");
            let (answer, source) = asker.ask_peer().expect("an answer");
            assert_eq!((answer.client.ip(), source), (own, udp), "connected");
        });
    }
}
