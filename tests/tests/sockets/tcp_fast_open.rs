//! TCP fast open: `sendto(MSG_FASTOPEN)` connects without `connect`.

use sidestep_tests::{
    cluster,
    cluster::{at, service},
    traffic::{Conversation, PATIENCE},
};
use socket2::{Domain, Socket, Type};

/// The first connection asks for a cookie, the later ones carry data in the SYN; both are translated.
#[test]
fn a_connection_that_begins_with_data_reaches_the_endpoint() {
    let cluster = cluster!(1);
    cluster.serve("web", &service("web", &["10.96.0.10", "fd00:10:96::10"])).expect("manifests");
    let _agent = cluster.lab.agent().expect("an agent");
    for vip in [at("10.96.0.10:80"), at("[fd00:10:96::10]:80")] {
        for _ in 0..3 {
            cluster.client.run(|| {
                let socket = Socket::new(Domain::for_address(vip), Type::STREAM, None).expect("a socket");
                socket.set_read_timeout(Some(PATIENCE)).expect("a limit");
                socket.set_write_timeout(Some(PATIENCE)).expect("a limit");
                let sent = socket.send_to_with_flags(b"who\n", &vip.into(), libc::MSG_FASTOPEN);
                assert_eq!(sent.expect("sendto"), 4);
                let mut conversation = Conversation::over(socket.into()).expect("a conversation");
                assert_eq!(conversation.read().expect("an answer").server, "pod-0");
                assert_eq!(conversation.peer().expect("a peer"), vip);
            });
        }
    }
}
