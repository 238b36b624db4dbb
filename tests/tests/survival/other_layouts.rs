//! Tables of another version, in which nothing is where this one has it: an agent converts them, under connections of
//! every kind and new ones all the time, and at whatever write it dies, the next one begins anew.

use std::{fs, net::SocketAddr, os::unix::process::ExitStatusExt as _, time::Duration};

use serde_json::Value;
use sidestep_tests::{
    Agent, Place, TwoNodes,
    cluster::{Backend, at, service},
    in_every_variant, other_layout,
    pressure::Pressure,
    skip,
    traffic::{Answer, Asker, Conversation, ask, connect, connect_from},
    two_nodes,
    two_nodes::{Variant, cluster_ips, node_ports, ways_in, web},
};

in_every_variant!(tables_of_another_version_are_converted_under_traffic);

/// The variable that a debug build heeds.
const VARIABLE: &str = "SIDESTEP_DIE_BEFORE_WRITE";
/// An agent that dies does so within this time.
const ALIVE: Duration = Duration::from_secs(10);
/// Before which writes of the conversion it dies.
const WRITES: [usize; 6] = [1, 2, 10, 50, 150, 300];
const PAUSE: Duration = Duration::from_millis(2);
/// A Service whose clients stay with their endpoint.
const STICKY: &str = "10.96.0.40:80";

/// What must go on as it was.
struct Staying {
    connections: Vec<(Conversation, Answer)>,
    /// Connected to a Service.
    connected: Asker,
    /// Asked a Service, and has not read the answer.
    unread: Asker,
    sticky: Answer,
    client: Place,
}

impl Staying {
    fn begin(nodes: &TwoNodes, client: Place) -> Self {
        let lines = "addr add 192.0.2.101/24 dev uplink\naddr add 2001:db8:192::101/64 dev uplink nodad\n";
        nodes.outside().namespace().ip_batch(lines).expect("addresses");
        let outside = ways_in().into_iter().flat_map(|way| [way; 3]).map(|way| {
            let source = if way.tcp.is_ipv4() { "192.0.2.101" } else { "2001:db8:192::101" };
            nodes.outside().run(|| connect_from(source.parse().expect("an address"), way.tcp))
        });
        let inside = cluster_ips().map(|way| client.run(|| connect(way.tcp)));
        let connections = outside.chain(inside).map(|connected| {
            let mut conversation = Conversation::over(connected.expect("a connection")).expect("a connection");
            let answer = conversation.ask().expect("an answer");
            (conversation, answer)
        });
        let connections = connections.collect();
        let dns = cluster_ips()[0].udp;
        let (connected, unread, sticky) = client.run(|| {
            let [connected, unread] = [(); 2].map(|()| Asker::v4().expect("a socket"));
            connected.connect(dns).expect("connected");
            connected.ask_peer().expect("an answer");
            unread.socket().send_to(b"who\n", dns).expect("sent");
            (connected, unread, ask(at(STICKY)).expect("an answer"))
        });
        Self { connections, connected, unread, sticky, client }
    }

    fn check(&mut self, when: &str) {
        for (conversation, answer) in &mut self.connections {
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
    fn read(&self) -> SocketAddr {
        self.unread.socket().recv_from(&mut [0; 1024]).expect("an answer").1
    }
}

/// A Service of every kind of frontend, and one with affinity.
fn publish(nodes: &TwoNodes) -> [Backend; 2] {
    let servers = [nodes.backend_here("here").expect("a pod"), nodes.backend_there("there").expect("a pod")];
    nodes.publish("web", &web(), &servers.each_ref()).expect("manifests");
    let sticky = service("sticky", &["10.96.0.40"]).client_ip_affinity(3600);
    nodes.publish("sticky", &sticky, &servers.each_ref()).expect("manifests");
    servers
}

fn status(nodes: &TwoNodes) -> Value {
    let output = nodes.lab().sidestep(&["status", "--output", "json"]).expect("it runs");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// How many connections all Services have had.
fn counted(nodes: &TwoNodes) -> u64 {
    let status = status(nodes);
    let services = status["services"].as_array().expect("a list");
    services.iter().filter_map(|service| service["connections"].as_u64()).sum()
}

/// Gives the tables that an agent left another layout.
fn rewrite(nodes: &TwoNodes) {
    let rewritten = other_layout::rewrite(&nodes.lab().pin_directory().join("v1")).expect("other tables");
    for name in ["FRONTENDS", "SERVICES", "ENDPOINTS", "SOCKETS", "DATAGRAMS", "AFFINITY", "FLOWS", "NAMES"] {
        assert!(rewritten.iter().any(|one| one == name), "{name} is not among {rewritten:?}");
    }
    assert!(rewritten.len() >= 25, "{rewritten:?}");
}

/// What a conversion leaves behind: nothing.
fn left_behind(nodes: &TwoNodes) -> Vec<String> {
    let entries = fs::read_dir(nodes.lab().pin_directory().join("v1")).expect("pins");
    let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with("next-") || name == "ready").collect()
}

/// ST-4: everything that the other version's tables knew is known, and nobody notices.
fn tables_of_another_version_are_converted_under_traffic(nodes: &TwoNodes) {
    let _servers = publish(nodes);
    let client = nodes.pod_here("client").expect("a pod");
    let mut agent = nodes.lab().agent().expect("an agent");
    let mut staying = Staying::begin(nodes, client.clone());
    let before = counted(nodes);
    let [inside, outside] = [cluster_ips()[0], node_ports()[0]];
    let pressures = [
        Pressure::paced(&client, inside.tcp, inside.udp, PAUSE),
        Pressure::paced(nodes.outside(), outside.tcp, outside.udp, PAUSE),
    ];
    assert!(agent.stop().expect("it stops").success());
    rewrite(nodes);
    agent.restart(nodes.lab()).expect("restart");
    assert_eq!(left_behind(nodes), [""; 0]);
    staying.check("after the conversion");
    assert_eq!(staying.read(), inside.udp);
    assert!(counted(nodes) > before, "{before} connections before");
    for pressure in &pressures {
        pressure.let_pass(50);
    }
    for pressure in pressures {
        pressure.stop().assert_flawless();
    }
}

/// The programs of the other version serve until those of this one do.
#[test]
fn an_agent_that_dies_while_it_converts_leaves_tables_that_serve() {
    let nodes = two_nodes!(Variant::DIRECT);
    let _servers = publish(&nodes);
    let client = nodes.pod_here("client").expect("a pod");
    let mut agent = nodes.lab().agent().expect("an agent");
    let mut staying = Staying::begin(&nodes, client);
    let way = node_ports()[0];
    let pressure = Pressure::paced(nodes.outside(), way.tcp, way.udp, PAUSE);
    assert!(agent.stop().expect("it stops").success());
    rewrite(&nodes);
    let mut deaths = 0;
    for number in WRITES {
        let mut agent = Agent::reading(nodes.lab()).variable(VARIABLE, number.to_string());
        agent.launch(nodes.lab()).expect("an agent");
        // It lives where the conversion takes fewer writes.
        let Ok(status) = agent.wait_for_end(ALIVE) else { break };
        assert_eq!(status.signal(), Some(libc::SIGKILL), "{status}");
        deaths += 1;
        staying.check(&format!("after a death before write {number}"));
    }
    if deaths == 0 {
        skip!("the agent is a release build, which has no place to die");
    }
    assert!(deaths >= 4, "{deaths} deaths");
    agent.restart(nodes.lab()).expect("restart");
    assert_eq!(left_behind(&nodes), [""; 0]);
    staying.check("after the conversion");
    pressure.stop().assert_flawless();
}
