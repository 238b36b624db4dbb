//! Packets to a NodePort that are not requests to its Service: answers to connections and exchanges that the node
//! itself, or a masqueraded pod, began *from* that port number, and TCP segments that begin no connection.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use serde_json::Value;
use sidestep_tests::{
    Place, TwoNodes,
    cluster::{Backend, DNS_PORT, HTTP_PORT},
    eventually,
    frames::FrameSender,
    in_every_variant,
    manifest::{EndpointSlice, Protocol, Service},
    netfilter::nft,
    packets::{ACK, Datagram, FIN, RST, SYN},
    snmp::counter,
    traffic::{Answer, Asker, Conversation, UdpServer, ask, connect_bound},
    two_nodes::{DNS_NODE_PORT, HTTP_NODE_PORT, node_ports},
};

use crate::serve;

in_every_variant!(
    connections_of_the_node_from_a_node_ports_number_are_answered,
    the_nodes_exchanges_with_itself_from_a_node_ports_number_are_answered,
    connections_from_the_number_of_a_new_node_port_go_on,
    pods_masqueraded_as_node_ports_get_their_answers,
    a_segment_that_is_not_a_syn_makes_no_record,
    node_ports_in_use_are_reserved,
);

/// Requests in each exchange.
const QUESTIONS: usize = 3;

/// A backend's address of the family of `like`.
fn address(place: &Place, like: SocketAddr, port: u16) -> SocketAddr {
    let ip = place.addresses().into_iter().find(|ip| ip.is_ipv4() == like.is_ipv4()).expect("an address");
    SocketAddr::new(ip, port)
}

/// PO-23: the node's TCP connections and UDP exchanges with the host outside and with pods, from the port numbers of
/// NodePorts.
fn connections_of_the_node_from_a_node_ports_number_are_answered(nodes: &TwoNodes) {
    let servers = [nodes.backend_here("here").expect("a pod"), nodes.backend_there("there").expect("a pod")];
    let peers = [
        Backend::start(nodes.outside().clone()).expect("servers"),
        nodes.backend_here("pod-here").expect("a pod"),
        nodes.backend_there("pod-there").expect("a pod"),
    ];
    let _agent = serve(nodes, &[&servers[0], &servers[1]]);
    let mut failures = Vec::new();
    for way in node_ports() {
        for peer in &peers {
            let name = peer.place.name();
            nodes.node().run(|| {
                let tcp = address(&peer.place, way.tcp, HTTP_PORT);
                let answers =
                    connect_bound(way.tcp, tcp).and_then(Conversation::over).and_then(|mut talk| {
                        (0..QUESTIONS).map(|_| talk.ask()).collect::<std::io::Result<Vec<_>>>()
                    });
                match answers {
                    Ok(answers) => assert!(answers.iter().all(|answer| answer.server == name), "{answers:?}"),
                    Err(error) => failures.push(format!("TCP from {} to {tcp}, {name}: {error}", way.tcp)),
                }
                let udp = address(&peer.place, way.udp, DNS_PORT);
                let asker = Asker::bound_to(way.udp).expect("a socket");
                for _ in 0..QUESTIONS {
                    match asker.ask(udp) {
                        Ok((answer, source)) => assert_eq!((answer.server.as_str(), source), (name, udp)),
                        Err(error) => {
                            failures.push(format!("UDP from {} to {udp}, {name}: {error}", way.udp));
                            break;
                        }
                    }
                }
            });
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

/// PO-23: an exchange between two sockets of the node, one of which has the number of a NodePort: the other one's
/// answers are not requests to the Service.
fn the_nodes_exchanges_with_itself_from_a_node_ports_number_are_answered(nodes: &TwoNodes) {
    let server = nodes.backend_here("here").expect("a pod");
    let _agent = serve(nodes, &[&server]);
    let numbers = node_ports().into_iter().map(|way| way.udp);
    let loopback = [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()]
        .map(|ip| SocketAddr::new(ip, DNS_NODE_PORT));
    for number in numbers.chain(loopback) {
        let own = SocketAddr::new(number.ip(), 5353);
        let _server = UdpServer::start_at(nodes.node(), "node", own).expect("a server");
        nodes.node().run(|| {
            for connected in [false, true] {
                let asker = Asker::bound_to(number).expect("a socket");
                if connected {
                    asker.connect(own).expect("connect");
                }
                let asked = if connected { asker.ask_peer() } else { asker.ask(own) };
                let (answer, source) =
                    asked.unwrap_or_else(|error| panic!("{number}, connected: {connected}: {error}"));
                assert_eq!((answer.server.as_str(), answer.client, source), ("node", number, own));
            }
        });
    }
}

/// Numbers that become NodePorts later: the node uses the first one as its source, a pod is masqueraded as the second
/// one.
const LATE: [u16; 2] = [31_999, 31_998];

/// PO-23: a new NodePort has the source port number of live connections and exchanges.
fn connections_from_the_number_of_a_new_node_port_go_on(nodes: &TwoNodes) {
    let server = nodes.backend_here("here").expect("a pod");
    let stranger = Backend::start(nodes.outside().clone()).expect("servers");
    let pod = nodes.pod_here("pod").expect("a pod");
    masquerade(nodes, &pod, &LATE[1].to_string());
    let _agent = serve(nodes, &[&server]);
    let mut talks = Vec::new();
    for way in node_ports() {
        let [tcp, udp] = [HTTP_PORT, DNS_PORT].map(|port| address(&stranger.place, way.tcp, port));
        let own = [SocketAddr::new(way.tcp.ip(), LATE[0]), SocketAddr::new(pod_ip(&pod, way.tcp), 0)];
        for (place, local) in [nodes.node(), &pod].into_iter().zip(own) {
            place.run(|| {
                let mut talk =
                    Conversation::over(connect_bound(local, tcp).expect("a connection")).expect("one");
                let asker = Asker::bound_to(local).expect("a socket");
                asker.connect(udp).expect("connect");
                for answer in [talk.ask().expect("an answer"), asker.ask_peer().expect("an answer").0] {
                    assert!(
                        LATE.contains(&answer.client.port()),
                        "the source is not one of the later NodePorts: {answer:?}"
                    );
                }
                talks.push((format!("{} of {}", way.tcp.ip(), place.name()), talk, asker));
            });
        }
    }
    publish_numbers(nodes, "late", LATE, &server);
    for way in node_ports() {
        for number in LATE {
            let frontend = SocketAddr::new(way.tcp.ip(), number);
            eventually("the new NodePort", || nodes.outside().run(|| ask(frontend)).is_ok());
        }
    }
    let mut failures = Vec::new();
    for (who, talk, asker) in &mut talks {
        let mut by_tcp = || talk.ask();
        let mut by_udp = || asker.ask_peer().map(|(answer, _)| answer);
        let protocols: [(&str, &mut dyn FnMut() -> std::io::Result<Answer>); 2] =
            [("TCP", &mut by_tcp), ("UDP", &mut by_udp)];
        for (protocol, ask) in protocols {
            match (0..QUESTIONS).map(|_| ask()).collect::<std::io::Result<Vec<_>>>() {
                Ok(answers) => {
                    assert!(answers.iter().all(|answer| answer.server == "outside"), "{answers:?}");
                }
                Err(error) => failures.push(format!("{protocol} from {who}: {error}")),
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

/// NodePort numbers as which pods are masqueraded.
const TAKEN: std::ops::Range<u16> = 30_100..30_116;
/// Connections, and exchanges, open at a time; fewer than the numbers.
const OPEN: usize = 12;
/// Stop after this many failures of a kind, as each one costs seconds.
const ENOUGH: usize = 3;

/// PO-23: a CNI masquerades pods' packets out of the cluster, and may choose any port; here all of them are NodePorts.
fn pods_masqueraded_as_node_ports_get_their_answers(nodes: &TwoNodes) {
    let server = nodes.backend_here("here").expect("a pod");
    let stranger = Backend::start(nodes.outside().clone()).expect("servers");
    let pod = nodes.pod_here("pod").expect("a pod");
    masquerade(nodes, &pod, &format!("{}-{}", TAKEN.start, TAKEN.end - 1));
    publish_numbers(nodes, "many", TAKEN, &server);
    let _agent = nodes.lab().agent().expect("an agent");
    let mut failures = Vec::new();
    for way in node_ports() {
        let [tcp, udp] = [HTTP_PORT, DNS_PORT].map(|port| address(&stranger.place, way.tcp, port));
        let mut seen = BTreeSet::new();
        pod.run(|| {
            let (mut open, before) = (Vec::new(), failures.len());
            for number in 0..OPEN {
                if failures.len() >= before + ENOUGH {
                    break;
                }
                match Conversation::with(tcp).and_then(|mut talk| Ok((talk.ask()?, talk.ask()?, talk))) {
                    Ok((first, second, talk)) => {
                        assert_eq!((first.server.as_str(), &first), ("outside", &second));
                        seen.insert(first.client);
                        open.push(talk);
                    }
                    Err(error) => failures.push(format!("TCP connection {number} to {tcp}: {error}")),
                }
            }
            let (mut askers, before) = (Vec::new(), failures.len());
            for number in 0..OPEN {
                if failures.len() >= before + ENOUGH {
                    break;
                }
                let asker = Asker::for_address(udp).expect("a socket");
                match asker.ask(udp).and_then(|first| Ok((first.0, asker.ask(udp)?.0))) {
                    Ok((first, second)) => {
                        assert_eq!((first.server.as_str(), &first), ("outside", &second));
                        seen.insert(first.client);
                    }
                    Err(error) => failures.push(format!("UDP exchange {number} with {udp}: {error}")),
                }
                askers.push(asker);
            }
        });
        let is_masqueraded =
            |client: &SocketAddr| client.ip() == way.tcp.ip() && TAKEN.contains(&client.port());
        assert!(seen.iter().all(is_masqueraded), "{seen:?}");
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

/// Control bits and payload of segments that begin no connection.
const CONTROLS: [(u8, &[u8]); 6] =
    [(ACK, b""), (ACK, b"who\n"), (SYN | ACK, b""), (FIN | ACK, b""), (RST, b""), (RST | ACK, b"")];

/// PO-23: it makes no record and goes to the node's stack, which answers with a reset unless the segment is one.
fn a_segment_that_is_not_a_syn_makes_no_record(nodes: &TwoNodes) {
    let servers = [nodes.backend_here("here").expect("a pod"), nodes.backend_there("there").expect("a pod")];
    let mut frames = FrameSender::new(nodes).expect("a packet socket");
    for server in &servers {
        let _agent = serve(nodes, &[server]);
        for (source, way) in nodes.outside().addresses().into_iter().zip(node_ports()) {
            for (number, (control, payload)) in (45_000..).zip(CONTROLS) {
                let client = SocketAddr::new(source, number);
                let before = counter(nodes.node(), "Tcp.OutRsts").expect("a counter");
                let segment = Datagram::tcp(client, way.tcp, control, payload.to_vec());
                frames.packet_as_it_is(&segment.packet()).expect("sent");
                if control & RST == 0 {
                    eventually(&format!("a reset by the stack: {way:?}, control {control}"), || {
                        counter(nodes.node(), "Tcp.OutRsts").expect("a counter") > before
                    });
                } else {
                    std::thread::sleep(Duration::from_millis(50));
                }
                let known = flows(nodes, client);
                assert!(known.is_empty(), "{way:?}, control {control}: {known:?}");
            }
            // A SYN, sent in the same way, begins a connection.
            let client = SocketAddr::new(source, 45_100);
            frames.syn(client, way.tcp, 1).expect("sent");
            eventually("a SYN makes a record", || flows(nodes, client).len() == 1);
        }
        assert_eq!(server.tcp.connections(), 0, "{}", server.place.name());
    }
}

/// PO-23: reserved while a Service uses them, and no longer.
fn node_ports_in_use_are_reserved(nodes: &TwoNodes) {
    let server = nodes.backend_here("here").expect("a pod");
    let _agent = serve(nodes, &[&server]);
    let are_reserved = || {
        let file = "/proc/sys/net/ipv4/ip_local_reserved_ports";
        let text = nodes.node().run(|| std::fs::read_to_string(file)).expect("the reserved ports");
        [HTTP_NODE_PORT, DNS_NODE_PORT, LATE[0], LATE[1]].map(|port| {
            text.trim().split(',').any(|part| match part.split_once('-') {
                Some((first, last)) => {
                    (first.parse().expect("a port")..=last.parse().expect("a port")).contains(&port)
                }
                None => part == port.to_string(),
            })
        })
    };
    eventually("the numbers in use", || are_reserved() == [true, true, false, false]);
    publish_numbers(nodes, "late", LATE, &server);
    eventually("more numbers", || are_reserved() == [true; 4]);
    nodes.lab().manifests().remove("web.yaml").expect("removed");
    eventually("fewer numbers", || are_reserved() == [false, false, true, true]);
}

/// The pod's address of the family of `like`.
fn pod_ip(pod: &Place, like: SocketAddr) -> IpAddr {
    address(pod, like, 0).ip()
}

/// Masquerades a pod's packets at the node's uplink with one of these ports, before any rules of a CNI.
fn masquerade(nodes: &TwoNodes, pod: &Place, ports: &str) {
    let rules = format!(
        "table inet outgoing {{
    chain postrouting {{
        type nat hook postrouting priority srcnat - 10; policy accept;
        oifname uplink ip saddr {} meta l4proto {{ tcp, udp }} masquerade to :{ports}
        oifname uplink ip6 saddr {} meta l4proto {{ tcp, udp }} masquerade to :{ports}
    }}
}}
",
        pod.v4, pod.v6
    );
    nft(nodes.node(), &rules).expect("rules");
}

/// Publishes a Service with these NodePorts, each in TCP and UDP, and this endpoint.
fn publish_numbers(nodes: &TwoNodes, name: &str, numbers: impl IntoIterator<Item = u16>, server: &Backend) {
    let mut service = Service::new(name, &["10.96.0.20", "fd00:10:96::20"]);
    let mut slices = [EndpointSlice::new(name), EndpointSlice::new(name)];
    for number in numbers {
        for (protocol, port) in [(Protocol::Tcp, HTTP_PORT), (Protocol::Udp, DNS_PORT)] {
            let name = format!("{protocol}-{number}").to_lowercase();
            service = service.port(&name, protocol, number).node_port(number);
            slices = slices.map(|slice| slice.port(&name, protocol, port));
        }
    }
    let [v4, v6] = slices;
    let (v4, v6) = (v4.ready(server.place.v4), v6.ready(server.place.v6));
    nodes.lab().manifests().write(&format!("{name}.yaml"), &[&service, &v4, &v6]).expect("manifests");
}

/// The flows of a client that `sidestep flows` lists.
fn flows(nodes: &TwoNodes, client: SocketAddr) -> Vec<Value> {
    let output = nodes.lab().sidestep(&["flows", "-o", "json", &client.to_string()]).expect("it runs");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{error}: {}", String::from_utf8_lossy(&output.stderr));
    })
}
