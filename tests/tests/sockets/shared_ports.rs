//! Sockets that share a port (`SO_REUSEPORT`): the kernel gives an answer to any of them, and whoever gets it sees
//! whom it is from. QUIC libraries and clients with a thread for each processor do this.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::AsFd,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use sidestep_tests::{
    Agent, cluster as new_cluster,
    cluster::{Cluster, DNS_PORT, at, service},
    traffic::PATIENCE,
};
use socket2::{Domain, Protocol, Socket, Type};

/// So many ports, that each of two sockets gets an answer on some of them.
const PORTS: std::ops::Range<u16> = 40_000..40_024;

/// One of several sockets at a port.
fn sharing(local: SocketAddr) -> UdpSocket {
    let socket = Socket::new(Domain::for_address(local), Type::DGRAM, Some(Protocol::UDP)).expect("a socket");
    socket.set_reuse_port(true).expect("SO_REUSEPORT");
    if local.is_ipv6() {
        socket.set_only_v6(false).expect("dual-stack");
    }
    socket.bind(&local.into()).expect("bind");
    socket.into()
}

/// Which of the sockets gets the next answer, and whom it believes it to be from.
fn next_answer(sockets: &[UdpSocket; 2]) -> (usize, SocketAddr) {
    let [mut one, mut other] =
        sockets.each_ref().map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN));
    let mut wanted = [one.clone(), other.clone()];
    let patience = PollTimeout::try_from(PATIENCE).expect("a timeout");
    assert!(poll(&mut wanted, patience).expect("poll") > 0, "no answer came");
    [one, other] = wanted;
    let index = [one, other].iter().position(|socket| socket.any() == Some(true)).expect("an answer");
    let (_, source) = sockets[index].recv_from(&mut [0; 1024]).expect("the answer");
    (index, source)
}

fn start(cluster: &Cluster) -> Agent {
    let service = service("dns", &["10.96.0.53", "fd00:10:96::53"]);
    let (v4, v6) = (cluster.slice_v4("dns", [0]), cluster.slice_v6("dns", [0]));
    cluster.lab.manifests().write("dns.yaml", &[&service, &v4, &v6]).expect("manifests");
    cluster.lab.agent().expect("an agent")
}

/// One kind of socket, and whom two of it ask.
struct Kind {
    any: IpAddr,
    vip: SocketAddr,
    /// The endpoint of the Service itself, and another pod.
    pods: [SocketAddr; 2],
}

impl Kind {
    /// Two sockets at this port.
    fn pair(&self, port: u16) -> [UdpSocket; 2] {
        [(); 2].map(|()| sharing((self.any, port).into()))
    }
}

fn of_every_kind(cluster: &Cluster) -> [Kind; 3] {
    let pods = [0, 1].map(|number| &cluster.backends[number].place);
    let (v4, v6) = (pods.map(|pod| pod.v4), pods.map(|pod| pod.v6));
    let kind = |any: IpAddr, vip, pods: [IpAddr; 2]| Kind {
        any,
        vip: at(vip),
        pods: pods.map(|pod| (pod, DNS_PORT).into()),
    };
    [
        kind(Ipv4Addr::UNSPECIFIED.into(), "10.96.0.53:53", v4.map(IpAddr::from)),
        kind(Ipv6Addr::UNSPECIFIED.into(), "[fd00:10:96::53]:53", v6.map(IpAddr::from)),
        kind(
            Ipv6Addr::UNSPECIFIED.into(),
            "[::ffff:10.96.0.53]:53",
            v4.map(|pod| pod.to_ipv6_mapped().into()),
        ),
    ]
}

/// Whoever of the two gets it.
#[test]
fn an_answer_is_from_the_service_for_every_socket_of_the_port() {
    let cluster = new_cluster!(2);
    let _agent = start(&cluster);
    for kind in of_every_kind(&cluster) {
        let vip = kind.vip;
        let mut got = [0; 2];
        let mut wrong = Vec::new();
        cluster.client.run(|| {
            for port in PORTS {
                let sockets = kind.pair(port);
                for asking in &sockets {
                    asking.send_to(b"who?", vip).expect("sendto");
                    let (index, source) = next_answer(&sockets);
                    got[index] += 1;
                    if source != vip {
                        wrong.push((port, source));
                    }
                }
            }
        });
        assert!(got.iter().all(|count| *count > 0), "one socket got all answers: {got:?}");
        assert!(wrong.is_empty(), "{} answers of {got:?} are not from {vip}: {wrong:?}", wrong.len());
    }
}

/// Two sockets need not agree on whom they talk to: the one that asked another pod itself is answered by that pod,
/// whoever gets the answer; the one that asked the endpoint itself sees the endpoint.
#[test]
fn a_pod_that_one_socket_of_the_port_asks_directly_answers_as_itself() {
    let cluster = new_cluster!(2);
    let _agent = start(&cluster);
    for kind in of_every_kind(&cluster) {
        let Kind { vip, pods: [endpoint, other], .. } = kind;
        cluster.client.run(|| {
            for port in PORTS {
                let sockets = kind.pair(port);
                sockets[0].send_to(b"who?", vip).expect("sendto");
                assert_eq!(next_answer(&sockets).1, vip, "port {port}");
                sockets[1].send_to(b"who?", other).expect("sendto");
                assert_eq!(next_answer(&sockets).1, other, "port {port}");
                sockets[1].send_to(b"who?", endpoint).expect("sendto");
                let (index, source) = next_answer(&sockets);
                // The one that asked through the Service cannot know that this answer is not for it.
                assert!(
                    source == endpoint || index == 0 && source == vip,
                    "port {port}: {source} at {index}"
                );
            }
        });
    }
}

/// Each of the two is connected to a Service of its own with the same endpoint.
#[test]
fn a_connected_socket_of_the_port_names_its_own_service() {
    let cluster = new_cluster!(1);
    for (name, ip) in [("one", "10.96.0.1"), ("two", "10.96.0.2")] {
        cluster.serve(name, &service(name, &[ip])).expect("manifests");
    }
    let _agent = cluster.lab.agent().expect("an agent");
    cluster.client.run(|| {
        for port in PORTS {
            let local = (Ipv4Addr::UNSPECIFIED, port).into();
            let sockets = [(); 2].map(|()| sharing(local));
            let vips = [at("10.96.0.1:53"), at("10.96.0.2:53")];
            sockets[0].connect(vips[0]).expect("connect");
            sockets[1].send_to(b"who?", vips[1]).expect("sendto");
            let (index, source) = next_answer(&sockets);
            // A connected socket gets whatever its peer sends, and knows it by one name.
            assert_eq!(source, vips[index], "port {port}");
            assert_eq!(sockets[0].peer_addr().expect("a peer"), vips[0], "port {port}");
        }
    });
}
