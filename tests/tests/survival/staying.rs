//! Connections of every kind that must go on as they were, whatever happens to agents and tables.

use std::net::SocketAddr;

use sidestep_tests::{
    Place, TwoNodes,
    cluster::{Backend, at, service},
    traffic::{Answer, Asker, Conversation, ask},
    two_nodes::{LongLived, cluster_ips, web},
};

/// A Service whose clients stay with their endpoint.
const STICKY: &str = "10.96.0.40:80";

/// What must go on as it was.
pub(crate) struct Staying {
    from_outside: Option<LongLived>,
    from_a_pod: Vec<(Conversation, Answer)>,
    /// Connected to a Service.
    connected: Asker,
    /// Asked a Service, and has not read the answer.
    unread: Asker,
    sticky: Answer,
    client: Place,
}

impl Staying {
    pub(crate) fn begin(nodes: &TwoNodes, client: Place) -> Self {
        let from_outside = LongLived::begin(nodes, 3).expect("connections");
        Self { from_outside: Some(from_outside), ..Self::from_a_pod(client) }
    }

    /// The same without those from outside.
    pub(crate) fn from_a_pod(client: Place) -> Self {
        let from_a_pod = cluster_ips().map(|way| {
            let mut conversation = client.run(|| Conversation::with(way.tcp)).expect("a connection");
            let answer = conversation.ask().expect("an answer");
            (conversation, answer)
        });
        let from_a_pod = from_a_pod.into();
        let dns = cluster_ips()[0].udp;
        let (connected, unread, sticky) = client.run(|| {
            let [connected, unread] = [(); 2].map(|()| Asker::v4().expect("a socket"));
            connected.connect(dns).expect("connected");
            connected.ask_peer().expect("an answer");
            unread.socket().send_to(b"who\n", dns).expect("sent");
            (connected, unread, ask(at(STICKY)).expect("an answer"))
        });
        Self { from_outside: None, from_a_pod, connected, unread, sticky, client }
    }

    pub(crate) fn check(&mut self, when: &str) {
        if let Some(from_outside) = &mut self.from_outside {
            from_outside.check().expect(when);
        }
        for (conversation, answer) in &mut self.from_a_pod {
            assert_eq!(conversation.ask().expect(when), *answer, "{when}");
        }
        let dns = cluster_ips()[0].udp;
        assert_eq!(self.connected.socket().peer_addr().expect(when), dns, "{when}");
        assert_eq!(self.connected.ask_peer().expect(when).1, dns, "{when}");
        for _ in 0..5 {
            let answer = self.client.run(|| ask(at(STICKY))).expect(when);
            assert_eq!(answer.server, self.sticky.server, "{when}");
        }
    }

    /// Whom the program sees that reads the answer.
    pub(crate) fn read(&self) -> SocketAddr {
        self.unread.socket().recv_from(&mut [0; 1024]).expect("an answer").1
    }
}

/// A Service of every kind of frontend, and one with affinity.
pub(crate) fn publish(nodes: &TwoNodes) -> [Backend; 2] {
    let servers = [nodes.backend_here("here").expect("a pod"), nodes.backend_there("there").expect("a pod")];
    nodes.publish("web", &web(), &servers.each_ref()).expect("manifests");
    let sticky = service("sticky", &["10.96.0.40"]).client_ip_affinity(3600);
    nodes.publish("sticky", &sticky, &servers.each_ref()).expect("manifests");
    servers
}
