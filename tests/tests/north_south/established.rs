//! Established flows keep their endpoint, however the Service changes.

use std::{
    io::ErrorKind,
    net::SocketAddr,
    time::{Duration, Instant},
};

use sidestep_tests::{
    TwoNodes,
    cluster::HTTP_PORT,
    eventually, in_every_variant,
    manifest::Conditions,
    traffic::{Answer, Asker, Conversation, TcpServer, ask, connect},
    two_nodes::{WayIn, node_ports, slices, ways_in, web},
};

use crate::serve;

in_every_variant!(
    connections_outlive_their_endpoint_in_the_service,
    connections_outlive_the_service,
    udp_moves_to_an_endpoint_that_serves,
    udp_that_was_refused_at_first_is_served_later,
    a_retried_syn_reaches_another_pod,
);

/// A TCP connection and a UDP socket that have got answers, and the answering endpoints.
struct Flow {
    way: WayIn,
    tcp: Conversation,
    udp: Asker,
    answers: [Answer; 2],
}

impl Flow {
    fn begin(nodes: &TwoNodes, way: WayIn) -> Self {
        nodes.outside().run(|| {
            let mut tcp = Conversation::with(way.tcp).expect("a connection");
            let udp = Asker::for_address(way.udp).expect("a socket");
            udp.connect(way.udp).expect("connect");
            let answers = [tcp.ask().expect("an answer"), udp.ask_peer().expect("an answer").0];
            Self { way, tcp, udp, answers }
        })
    }

    /// Asserts that the same endpoint still sees the same client.
    fn assert_tcp_goes_on(&mut self) {
        let answer = self.tcp.ask().unwrap_or_else(|error| panic!("{:?}: {error}", self.way));
        assert_eq!(answer, self.answers[0], "{:?}", self.way);
    }

    fn assert_udp_goes_on(&self) {
        let answer = self.udp.ask_peer().unwrap_or_else(|error| panic!("{:?}: {error}", self.way)).0;
        assert_eq!(answer, self.answers[1], "{:?}", self.way);
    }
}

fn begin_all(nodes: &TwoNodes) -> Vec<Flow> {
    ways_in().into_iter().map(|way| Flow::begin(nodes, way)).collect()
}

/// ST-4, ST-10: the endpoint becomes unready, drains, and is replaced by another one.
fn connections_outlive_their_endpoint_in_the_service(nodes: &TwoNodes) {
    for (old, new) in [
        (nodes.backend_here("old-here"), nodes.backend_there("new-there")),
        (nodes.backend_there("old-there"), nodes.backend_here("new-here")),
    ] {
        let (old, new) = (old.expect("a pod"), new.expect("a pod"));
        let _agent = serve(nodes, &[&old]);
        let mut flows = begin_all(nodes);
        for conditions in [Conditions { ready: false, ..Conditions::READY }, Conditions::DRAINING] {
            let [v4, v6] = slices("web", &[(&old.place, conditions), (&new.place, Conditions::READY)]);
            nodes.lab().manifests().write("web.yaml", &[&web(), &v4, &v6]).expect("manifests");
            for way in ways_in() {
                let new = new.place.name();
                eventually("new ones go to the new endpoint", || {
                    nodes.outside().run(|| ask(way.tcp)).is_ok_and(|answer| answer.server == new)
                });
            }
            for flow in &mut flows {
                flow.assert_tcp_goes_on();
                flow.assert_udp_goes_on();
            }
        }
        nodes.publish("web", &web(), &[&new]).expect("manifests");
        std::thread::sleep(Duration::from_millis(300));
        flows.iter_mut().for_each(Flow::assert_tcp_goes_on);
    }
}

/// ST-4: the Service is deleted, its NodePort closes, and the connection goes on, even if another Service gets the
/// addresses.
fn connections_outlive_the_service(nodes: &TwoNodes) {
    let (here, there) =
        (nodes.backend_here("here").expect("a pod"), nodes.backend_there("there").expect("a pod"));
    for server in [&here, &there] {
        let _agent = serve(nodes, &[server]);
        let mut flows = begin_all(nodes);
        nodes.lab().manifests().remove("web.yaml").expect("removed");
        let [v4, _] = node_ports();
        eventually("the NodePort is gone", || {
            let connected = nodes.outside().run(|| connect(v4.tcp));
            matches!(connected, Err(error) if error.kind() == ErrorKind::ConnectionRefused)
        });
        flows.iter_mut().for_each(Flow::assert_tcp_goes_on);
        let other = nodes.backend_here("third").expect("a pod");
        nodes.publish("web", &web(), &[&other]).expect("manifests");
        eventually("the other Service", || nodes.outside().run(|| ask(v4.tcp)).is_ok());
        flows.iter_mut().for_each(Flow::assert_tcp_goes_on);
    }
}

/// ST-5: a socket gets another endpoint once its own is gone, from the same source port; a flow keeps an endpoint that
/// serves.
fn udp_moves_to_an_endpoint_that_serves(nodes: &TwoNodes) {
    let (here, there) =
        (nodes.backend_here("here").expect("a pod"), nodes.backend_there("there").expect("a pod"));
    let _agent = serve(nodes, &[&here]);
    let flows = begin_all(nodes);
    for (servers, name) in [([&there], "there"), ([&here], "here")] {
        nodes.publish("web", &web(), &servers).expect("manifests");
        for flow in &flows {
            eventually("the remaining endpoint answers", || {
                flow.udp.ask_peer().is_ok_and(|(answer, _)| answer.server == name)
            });
        }
    }
    nodes.publish("web", &web(), &[&here, &there]).expect("manifests");
    for flow in &flows {
        for _ in 0..20 {
            assert_eq!(flow.udp.ask_peer().expect("an answer").0.server, "here", "{:?}", flow.way);
        }
    }
}

/// ST-6: a flow that was refused without endpoints reaches the first endpoint that appears.
fn udp_that_was_refused_at_first_is_served_later(nodes: &TwoNodes) {
    let _agent = serve(nodes, &[]);
    let askers: Vec<(WayIn, Asker)> = ways_in()
        .into_iter()
        .map(|way| (way, nodes.outside().run(|| Asker::for_address(way.udp)).expect("a socket")))
        .collect();
    for (way, asker) in &askers {
        asker.connect(way.udp).expect("connect");
        asker.ask_peer().expect_err("the Service has no endpoint");
    }
    let server = nodes.backend_there("there").expect("a pod");
    nodes.publish("web", &web(), &[&server]).expect("manifests");
    for (_, asker) in &askers {
        eventually("an answer", || asker.ask_peer().is_ok());
    }
}

/// A connection without an answer is not established: its next SYN goes to an endpoint that exists.
fn a_retried_syn_reaches_another_pod(nodes: &TwoNodes) {
    let (here, there) =
        (nodes.pod_here("gone-here").expect("a pod"), nodes.pod_there("gone-there").expect("a pod"));
    let server = nodes.pod_there("server").expect("a pod");
    let _server = TcpServer::start(&server, "server", HTTP_PORT).expect("a server");
    for gone in [&here, &there] {
        nodes.publish_places("web", &web(), &[gone]).expect("manifests");
        let _agent = nodes.lab().agent().expect("an agent");
        // The pod drops packets without an answer.
        gone.namespace().ip_batch("link set eth0 down\n").expect("down");
        let addresses: Vec<SocketAddr> = node_ports().map(|way| way.tcp).into();
        std::thread::scope(|scope| {
            let start = Instant::now();
            let connecting: Vec<_> = addresses
                .iter()
                .map(|address| scope.spawn(|| nodes.outside().run(|| connect(*address))))
                .collect();
            std::thread::sleep(Duration::from_millis(300));
            nodes.publish_places("web", &web(), &[&server]).expect("manifests");
            for connected in connecting {
                connected.join().expect("no panic").expect("a connection by the second or third SYN");
            }
            assert!(start.elapsed() > Duration::from_millis(500), "the first SYN got an answer");
        });
    }
}
