//! A pod that asks its own Service while its server is down, from the very port that the server has.

use std::net::{Ipv4Addr, SocketAddr};

use sidestep_tests::{
    cluster,
    cluster::{HTTP, at},
    manifest::{EndpointSlice, Protocol, Service},
    skip,
    traffic::{PATIENCE, TcpServer, is_refused},
};
use socket2::{Domain, Socket, Type};

/// A targetPort among those that clients get.
const PORT: u16 = 40_123;

/// PO-8: a socket that is sent to its own address and port is connected to itself, and then has the port that the
/// server wants. Netfilter masquerades such a connection, so that it is refused.
#[test]
fn a_socket_is_refused_rather_than_connected_to_itself() {
    let cluster = cluster!(0);
    let pod = cluster.lab.pod("pod").expect("a pod");
    let range =
        pod.run(|| std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")).expect("the range");
    let [low, high] =
        [0, 1].map(|index| range.split_whitespace().nth(index).and_then(|port| port.parse().ok()));
    if !(low..=high).contains(&Some(PORT)) {
        skip!("{PORT} is no port of clients here: {range}");
    }
    let service = Service::new("web", &["10.96.0.10", "fd00:10:96::10"]).port(HTTP, Protocol::Tcp, 80);
    let slice = || EndpointSlice::new("web").port(HTTP, Protocol::Tcp, PORT);
    let (v4, v6) = (slice().ready(pod.v4), slice().ready(pod.v6));
    cluster.lab.manifests().write("web.yaml", &[&service, &v4, &v6]).expect("manifests");
    let _agent = cluster.lab.agent().expect("an agent");
    let connect = |vip: SocketAddr, local: SocketAddr| {
        let socket = Socket::new(Domain::for_address(vip), Type::STREAM, None).expect("a socket");
        socket.set_reuse_address(true).expect("SO_REUSEADDR");
        socket.bind(&local.into()).expect("bind");
        socket.connect_timeout(&vip.into(), PATIENCE)
    };
    let any_v4 = Ipv4Addr::UNSPECIFIED;
    // A socket that is bound to a port alone gets its address after the hook: it cannot be told.
    let cases: [(&str, SocketAddr); 3] = [
        ("10.96.0.10:80", (pod.v4, PORT).into()),
        ("[fd00:10:96::10]:80", (pod.v6, PORT).into()),
        ("[::ffff:10.96.0.10]:80", (pod.v4.to_ipv6_mapped(), PORT).into()),
    ];
    pod.run(|| {
        for (vip, local) in cases {
            let result = connect(at(vip), local);
            assert!(is_refused(&result), "{vip} from {local}: {result:?}");
        }
    });
    // A client at another port hears of the missing server as any client does, and reaches it when it is there.
    assert!(is_refused(&pod.run(|| connect(at("10.96.0.10:80"), (any_v4, PORT + 1).into()))));
    let _server = TcpServer::start(&pod, "pod", PORT).expect("its port is free");
    assert!(pod.run(|| connect(at("10.96.0.10:80"), (any_v4, PORT + 2).into())).is_ok());
}
