//! Sockets of the node's own processes that are bound to loopback and ask a NodePort.
//!
//! In kube-proxy's iptables mode a NodePort at 127.0.0.1 works because of `route_localnet`, and because such a
//! connection is masqueraded. Here the endpoint is chosen in `connect()`, and the source stays what the program bound;
//! from 127.0.0.1, or through `lo`, no packet leads to a pod. The program is to hear that at once.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use sidestep_tests::{
    Agent, cluster as new_cluster,
    cluster::{Cluster, DNS, HTTP},
    manifest::{Protocol as L4, Service},
    traffic::PATIENCE,
};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

const TCP: u16 = 30080;
const UDP: u16 = 30053;
/// What is an answer at once, on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(1);

fn start(cluster: &Cluster) -> Agent {
    let service = Service::new("web", &["10.96.0.10", "fd00:10:96::10"])
        .port(HTTP, L4::Tcp, 80)
        .node_port(TCP)
        .port(DNS, L4::Udp, 53)
        .node_port(UDP);
    cluster.serve("web", &service).expect("manifests");
    cluster.lab.agent().expect("an agent")
}

/// Asks from a socket that is bound so, and returns the length of the answer.
type Ask = fn(Bound, SocketAddr) -> io::Result<usize>;

/// How a socket is bound.
#[derive(Clone, Copy, Debug)]
enum Bound {
    /// To the loopback address of its family.
    Address,
    /// To the device `lo`.
    Device,
    /// To both.
    Both,
}

fn socket(bound: Bound, to: SocketAddr, kind: Type) -> io::Result<Socket> {
    let protocol = if kind == Type::STREAM { Protocol::TCP } else { Protocol::UDP };
    let socket = Socket::new(Domain::for_address(to), kind, Some(protocol))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let loopback: SocketAddr =
        if to.is_ipv4() { (Ipv4Addr::LOCALHOST, 0).into() } else { (Ipv6Addr::LOCALHOST, 0).into() };
    if matches!(bound, Bound::Device | Bound::Both) {
        socket.bind_device(Some(b"lo"))?;
    }
    if matches!(bound, Bound::Address | Bound::Both) {
        socket.bind(&loopback.into())?;
    }
    Ok(socket)
}

fn read(socket: &Socket) -> io::Result<usize> {
    let mut buffer = [0; 256];
    io::Read::read(&mut &*socket, &mut buffer)
}

fn over_tcp(bound: Bound, to: SocketAddr) -> io::Result<usize> {
    let socket = socket(bound, to, Type::STREAM)?;
    socket.connect_timeout(&to.into(), PATIENCE)?;
    socket.send(b"who?\n")?;
    read(&socket)
}

fn over_connected_udp(bound: Bound, to: SocketAddr) -> io::Result<usize> {
    let socket = socket(bound, to, Type::DGRAM)?;
    socket.connect(&to.into())?;
    socket.send(b"who?")?;
    read(&socket)
}

fn over_unconnected_udp(bound: Bound, to: SocketAddr) -> io::Result<usize> {
    let socket = socket(bound, to, Type::DGRAM)?;
    socket.send_to(b"who?", &SockAddr::from(to))?;
    read(&socket)
}

/// PO-11, PO-21: it works, or an error says at once that it does not; nothing is lost without a word.
#[test]
fn a_socket_bound_to_loopback_is_served_or_fails_at_once() {
    let cluster = new_cluster!(1);
    let _agent = start(&cluster);
    let [v4, v6] = cluster.lab.node().addresses();
    let mut cases = Vec::new();
    for ip in [Ipv4Addr::LOCALHOST.into(), v4, Ipv6Addr::LOCALHOST.into(), v6] {
        for bound in [Bound::Address, Bound::Device, Bound::Both] {
            let ways: [(_, Ask, _); 3] = [
                ("TCP", over_tcp, TCP),
                ("connected UDP", over_connected_udp, UDP),
                ("UDP", over_unconnected_udp, UDP),
            ];
            cases.extend(ways.map(|(way, ask, port)| (way, ask, bound, SocketAddr::new(ip, port))));
        }
    }
    // At the same time: what is lost without a word takes seconds.
    let results: Vec<(String, Duration)> = cluster.lab.node().run(|| {
        thread::scope(|scope| {
            let asked: Vec<_> = cases
                .into_iter()
                .map(|(way, ask, bound, to)| {
                    scope.spawn(move || {
                        let start = Instant::now();
                        let result = ask(bound, to);
                        let took = start.elapsed();
                        (format!("{way} to {to}, {bound:?}: {result:?} after {took:?}"), took)
                    })
                })
                .collect();
            asked.into_iter().map(|asked| asked.join().expect("a result")).collect()
        })
    });
    let (slow, at_once): (Vec<_>, Vec<_>) = results.into_iter().partition(|(_, took)| *took > AT_ONCE);
    let lines = |results: &[(String, Duration)]| -> Vec<String> {
        results.iter().map(|(line, _)| line.clone()).collect()
    };
    println!("at once: {:#?}", lines(&at_once));
    assert!(slow.is_empty(), "lost without a word: {:#?}", lines(&slow));
}
