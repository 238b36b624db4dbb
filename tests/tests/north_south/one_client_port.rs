//! Connections of one client port to one pod, through several frontends: they would be the same packets there, so all but
//! one have another source port, and none is refused.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};

use sidestep_tests::{
    Agent, TwoNodes,
    cluster::DNS_PORT,
    in_both_extremes, in_every_variant,
    kube_proxy::Flavour,
    place::Place,
    traffic::{Answer, Asker, Conversation, PATIENCE, connect_bound, is_refused},
    two_nodes::{WayIn, ways_in, web},
};
use socket2::{Domain, Socket, Type};

use crate::{
    serve,
    talks::{self, load_balancer_ips, node_ports, udp_node_ports},
};

in_every_variant!(
    each_frontend_serves_the_port,
    fragments_and_errors_reach_the_socket_that_they_are_for,
    both_go_on_after_a_restart,
);

in_both_extremes!(kube_proxy_serves_the_port_too);

/// The client's port.
const PORT: u16 = 20_000;
/// Bytes of a datagram that is sent in fragments.
const LONG: usize = 4000;

/// The client's address for this frontend.
fn client(nodes: &TwoNodes, frontend: SocketAddr) -> SocketAddr {
    let of_family = |ip: &IpAddr| ip.is_ipv4() == frontend.is_ipv4();
    let ip = nodes.outside().addresses().into_iter().find(of_family).expect("an address of the family");
    SocketAddr::new(ip, PORT)
}

/// A connection and a UDP flow from the client's port through each of these frontends; a second request on each after all
/// have begun. Returns the clients that the server saw by TCP.
fn talk(nodes: &TwoNodes, server: &str, frontends: &[(SocketAddr, SocketAddr)]) -> Vec<SocketAddr> {
    nodes.outside().run(|| {
        let mut seen = Vec::new();
        for v4 in [true, false] {
            let of_family = || frontends.iter().filter(|(tcp, _)| tcp.is_ipv4() == v4);
            let mut connections: Vec<Conversation> = of_family()
                .map(|(tcp, _)| {
                    let stream = connect_bound(client(nodes, *tcp), *tcp)
                        .unwrap_or_else(|error| panic!("{tcp} at {server}: {error}"));
                    Conversation::over(stream).expect("options")
                })
                .collect();
            let mut all = |connections: &mut Vec<Conversation>| {
                for connection in connections {
                    let answer = connection.ask().expect("an answer");
                    assert_eq!(answer.server, server);
                    seen.push(answer.client);
                }
            };
            all(&mut connections);
            all(&mut connections);
            // One socket, as that of a resolver with several servers.
            let (_, first) = of_family().next().expect("a frontend");
            let asker = Asker::bound_to(client(nodes, *first)).expect("a socket");
            for (_, udp) in of_family().chain(of_family()) {
                let (answer, from) =
                    asker.ask(*udp).unwrap_or_else(|error| panic!("{udp} at {server}: {error}"));
                assert_eq!((answer.server.as_str(), from), (server, *udp));
            }
            for connection in connections {
                // The port is free again at once.
                connection.abort().expect("a reset");
            }
        }
        seen
    })
}

fn of(ways: &[WayIn]) -> Vec<(SocketAddr, SocketAddr)> {
    ways.iter().map(|way| (way.tcp, way.udp)).collect()
}

/// ST-4: with the endpoint here, which sees its clients' addresses, and elsewhere.
fn each_frontend_serves_the_port(nodes: &TwoNodes) {
    for server in [nodes.backend_here("here").expect("a pod"), nodes.backend_there("there").expect("a pod")] {
        let agent = serve(nodes, &[&server]);
        let name = server.place.name();
        let seen = talk(nodes, name, &of(&ways_in()));
        if name == "here" {
            let clients = nodes.outside().addresses();
            assert!(seen.iter().all(|client| clients.contains(&client.ip())), "{seen:?}");
            let own = seen.iter().filter(|client| client.port() == PORT).count();
            assert_eq!(own, 2 * 2, "the first one of each family keeps its port, in both requests: {seen:?}");
        }
        let refused = nodes.lab().sidestep(&["status", "-o", "json"]).expect("it runs");
        let status: serde_json::Value = serde_json::from_slice(&refused.stdout).expect("JSON");
        let refusals = status["refusals"].as_object().expect("refusals");
        assert!(refusals.values().all(|count| count == 0), "{refusals:?}");
        drop(agent);
    }
}

/// What netfilter does in the same place.
fn kube_proxy_serves_the_port_too(nodes: &TwoNodes) {
    let servers = talks::serve(nodes, Flavour::Nftables);
    for (number, server) in servers.iter().enumerate() {
        let tcp = [node_ports(nodes), load_balancer_ips(80)].concat();
        let udp = [udp_node_ports(nodes), load_balancer_ips(53)].concat();
        let all: Vec<_> = tcp.into_iter().zip(udp).collect();
        // Two of each kind belong to each server.
        let its: Vec<_> = all.chunks(2).skip(number).step_by(2).flatten().copied().collect();
        talk(nodes, server.place.name(), &its);
    }
}

/// Two UDP flows from the client's port to this pod, through two frontends. The second one has another port there.
struct Flows {
    server: UdpSocket,
    sockets: [UdpSocket; 2],
    /// The clients that the server sees.
    clients: [SocketAddr; 2],
}

impl Flows {
    fn begin(nodes: &TwoNodes, pod: &Place, frontends: [SocketAddr; 2]) -> Self {
        let server = pod.run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, DNS_PORT))).expect("a socket");
        server.set_read_timeout(Some(PATIENCE)).expect("an option");
        let sockets =
            frontends.map(|frontend| nodes.outside().run(|| flow(client(nodes, frontend), frontend)));
        let clients = sockets.each_ref().map(|socket| {
            socket.send(b"who").expect("sent");
            let (_, client) = server.recv_from(&mut [0; 16]).expect("a question");
            client
        });
        assert_ne!(clients[0], clients[1]);
        Self { server, sockets, clients }
    }

    /// Sends a datagram of this length in each flow, and back.
    fn echo(&self, length: usize) {
        let mut buffer = vec![0; 2 * length];
        for (number, (socket, client)) in (0..).zip(self.sockets.iter().zip(self.clients)) {
            let question = vec![number; length];
            let mut send = || {
                socket.send(&question)?;
                self.server.recv_from(&mut buffer)
            };
            // The path may be narrower: the first one is lost, and the socket hears of it (EMSGSIZE).
            let (got, from) = send().or_else(|_| send()).or_else(|_| send()).expect("a question");
            assert_eq!((&buffer[..got], from), (&question[..], client));
            self.server.send_to(&question, client).expect("sent");
            let got = socket.recv(&mut buffer).expect("an answer");
            assert_eq!(&buffer[..got], &question[..]);
        }
    }
}

fn flow(local: SocketAddr, frontend: SocketAddr) -> UdpSocket {
    let socket = Socket::new(Domain::for_address(local), Type::DGRAM, None).expect("a socket");
    socket.set_reuse_address(true).expect("an option");
    socket.set_read_timeout(Some(PATIENCE)).expect("an option");
    socket.bind(&local.into()).expect("bind");
    socket.connect(&frontend.into()).expect("connect");
    socket.into()
}

/// PO-29. "Port unreachable" comes from the pod for the requests of either flow, and from the client for its answers.
fn fragments_and_errors_reach_the_socket_that_they_are_for(nodes: &TwoNodes) {
    for pod in [nodes.pod_here("here").expect("a pod"), nodes.pod_there("there").expect("a pod")] {
        nodes.publish_places("web", &web(), &[&pod]).expect("manifests");
        let _agent = nodes.lab().agent().expect("an agent");
        for v4 in [true, false] {
            let of_family = ways_in().into_iter().map(|way| way.udp).filter(|udp| udp.is_ipv4() == v4);
            let frontends: Vec<SocketAddr> = of_family.take(2).collect();
            let begin = || Flows::begin(nodes, &pod, [frontends[0], frontends[1]]);
            let flows = begin();
            flows.echo(8);
            flows.echo(LONG);
            let Flows { server, sockets, .. } = flows;
            drop(server);
            for number in [1, 0] {
                sockets[number].send(b"who").expect("sent");
                let refused = sockets[number].recv(&mut [0; 16]);
                assert!(is_refused(&refused), "flow {number} at {}: {refused:?}", pod.name());
                let other = sockets[1 - number].take_error().expect("an option");
                assert!(other.is_none(), "flow {number} at {}: {other:?}", pod.name());
            }
            drop(sockets);
            let Flows { server, sockets, clients } = begin();
            for (socket, client) in sockets.into_iter().zip(clients).rev() {
                server.connect(client).expect("connect");
                drop(socket);
                server.send(b"me").expect("sent");
                let refused = server.recv(&mut [0; 16]);
                assert!(is_refused(&refused), "{client} at {}: {refused:?}", pod.name());
            }
        }
    }
}

/// ST-4, also with another range of source ports.
fn both_go_on_after_a_restart(nodes: &TwoNodes) {
    let [here, there] =
        [nodes.backend_here("here"), nodes.backend_there("there")].map(|pod| pod.expect("a pod"));
    for server in [&here, &there] {
        let mut agent = serve(nodes, &[server]);
        let ways = ways_in();
        let mut connections: Vec<Conversation> = nodes.outside().run(|| {
            let connect = |way: &WayIn| connect_bound(client(nodes, way.tcp), way.tcp).expect("a connection");
            ways.iter().map(|way| Conversation::over(connect(way)).expect("options")).collect()
        });
        let before: Vec<Answer> = connections.iter_mut().map(|one| one.ask().expect("an answer")).collect();
        agent.kill().expect("kill -9");
        drop(agent);
        let other = Agent::reading(nodes.lab()).arguments(["--source-port-range", "50000-50999"]);
        let _agent = other.started(nodes.lab()).expect("an agent");
        for (connection, before) in connections.iter_mut().zip(before) {
            assert_eq!(connection.ask().expect("an answer").client, before.client);
        }
        for connection in connections {
            connection.abort().expect("a reset");
        }
    }
}
