//! Whom an answer is from: whoever was asked, whatever became of the socket meanwhile.

use std::{net::SocketAddr, os::fd::AsFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use sidestep_tests::{
    Agent, Place, cluster as new_cluster,
    cluster::{Cluster, DNS_PORT, at, service},
    eventually,
    sockets::disconnect,
    traffic::{Asker, PATIENCE, canonical},
};

/// Two Services with one pod each, of both families.
fn start(cluster: &Cluster) -> Agent {
    for (number, name) in ["one", "two"].into_iter().enumerate() {
        let service =
            service(name, &[&format!("10.96.0.{}", number + 1), &format!("fd00:10:96::{}", number + 1)]);
        let (v4, v6) = (cluster.slice_v4(name, [number]), cluster.slice_v6(name, [number]));
        cluster.lab.manifests().write(&format!("{name}.yaml"), &[&service, &v4, &v6]).expect("manifests");
    }
    cluster.lab.agent().expect("an agent")
}

/// The addresses of the Services and of their pods, for one kind of socket.
struct Addresses {
    services: [SocketAddr; 2],
    pods: [SocketAddr; 2],
}

fn of_every_kind(cluster: &Cluster) -> [Addresses; 3] {
    let pods: Vec<&Place> = cluster.backends.iter().map(|backend| &backend.place).collect();
    let addresses = |services: [&str; 2], pod: &dyn Fn(&Place) -> SocketAddr| Addresses {
        services: services.map(at),
        pods: [pod(pods[0]), pod(pods[1])],
    };
    [
        addresses(["10.96.0.1:53", "10.96.0.2:53"], &|pod| (pod.v4, DNS_PORT).into()),
        addresses(["[fd00:10:96::1]:53", "[fd00:10:96::2]:53"], &|pod| (pod.v6, DNS_PORT).into()),
        addresses(["[::ffff:10.96.0.1]:53", "[::ffff:10.96.0.2]:53"], &|pod| {
            (pod.v4.to_ipv6_mapped(), DNS_PORT).into()
        }),
    ]
}

/// Waits until an answer has come, and leaves it where it is: no call that a program of ours sees is made.
fn wait_for_answer(asker: &Asker) {
    let mut wanted = [PollFd::new(asker.socket().as_fd(), PollFlags::POLLIN)];
    let patience = PollTimeout::try_from(PATIENCE).expect("a timeout");
    assert_eq!(poll(&mut wanted, patience).expect("poll"), 1, "no answer came");
}

/// Whom the next answer in the queue is from.
fn source(asker: &Asker) -> SocketAddr {
    asker.socket().recv_from(&mut [0; 1024]).expect("the answer").1
}

/// A gossip: it joins through the Service, then talks to the members themselves, from the same socket.
#[test]
fn a_pod_that_is_asked_directly_answers_as_itself() {
    let cluster = new_cluster!(2);
    let _agent = start(&cluster);
    for Addresses { services: [vip, _], pods: [pod, other] } in of_every_kind(&cluster) {
        cluster.client.run(|| {
            let asker = Asker::for_address(vip).expect("a socket");
            for address in [vip, pod, vip, other, pod, pod, vip, vip] {
                assert_eq!(asker.ask(address).expect("an answer").1, address);
            }
        });
    }
}

/// An answer that waited while the socket was connected to somebody else. Not to the very pod that answered: which of
/// its answers was asked for through the Service nobody can tell then.
#[test]
fn an_answer_that_waited_for_a_connect_is_from_whom_was_asked() {
    let cluster = new_cluster!(2);
    let _agent = start(&cluster);
    for Addresses { services: [vip, next_vip], pods: [_, other_pod] } in of_every_kind(&cluster) {
        for next in [next_vip, other_pod, vip] {
            cluster.client.run(|| {
                let asker = Asker::for_address(vip).expect("a socket");
                asker.socket().send_to(b"sendto", vip).expect("sendto");
                wait_for_answer(&asker);
                asker.connect(next).expect("connect");
                assert_eq!(source(&asker), vip, "asked with sendto, then connected to {next}");

                let asker = Asker::for_address(vip).expect("a socket");
                asker.connect(vip).expect("connect");
                asker.socket().send(b"send").expect("send");
                wait_for_answer(&asker);
                asker.connect(next).expect("connect");
                assert_eq!(source(&asker), vip, "asked with send, then connected to {next}");
            });
        }
    }
}

/// An answer that waited while the socket was disconnected.
#[test]
fn an_answer_that_waited_for_a_disconnect_is_from_whom_was_asked() {
    let cluster = new_cluster!(2);
    let _agent = start(&cluster);
    for Addresses { services: [vip, _], pods: [_, other_pod] } in of_every_kind(&cluster) {
        cluster.client.run(|| {
            let asker = Asker::for_address(vip).expect("a socket");
            asker.connect(vip).expect("connect");
            asker.socket().send(b"send").expect("send");
            wait_for_answer(&asker);
            disconnect(asker.socket()).expect("disconnect");
            assert_eq!(source(&asker), vip);
            // And what is asked now is named for itself. Not in IPv6, where Linux lets nobody but the former peer through
            // to a socket that was disconnected (`sk_v6_daddr` stays).
            if canonical(vip).is_ipv4() {
                assert_eq!(asker.ask(other_pod).expect("an answer").1, other_pod);
            }
            assert_eq!(asker.ask(vip).expect("an answer").1, vip);
        });
    }
}

/// An answer that waited while the endpoint that gave it was replaced, and the Service was asked again.
#[test]
fn an_answer_that_waited_for_a_new_endpoint_is_from_whom_was_asked() {
    let cluster = new_cluster!(2);
    let _agent = start(&cluster);
    let one = service("one", &["10.96.0.1", "fd00:10:96::1"]);
    for (kind, pod) in of_every_kind(&cluster).into_iter().zip([1, 0, 1]) {
        let vip = kind.services[0];
        let asker = cluster.client.run(|| Asker::for_address(vip)).expect("a socket");
        asker.socket().send_to(b"sendto", vip).expect("sendto");
        wait_for_answer(&asker);
        let (v4, v6) = (cluster.slice_v4("one", [pod]), cluster.slice_v6("one", [pod]));
        cluster.lab.manifests().write("one.yaml", &[&one, &v4, &v6]).expect("manifests");
        let new = format!("pod-{pod}");
        eventually("the new endpoint is there", || {
            let answer = cluster.client.run(|| Asker::for_address(vip).and_then(|asker| asker.ask(vip)));
            answer.expect("an answer").0.server == new
        });
        asker.socket().send_to(b"sendto", vip).expect("sendto");
        assert_eq!([source(&asker), source(&asker)], [vip, vip]);
    }
}

/// A third Service, with the pod of the first one: its addresses, as [`of_every_kind`] has those of the others.
fn share_a_pod(cluster: &Cluster) -> [SocketAddr; 3] {
    let third = service("three", &["10.96.0.3", "fd00:10:96::3"]);
    let (v4, v6) = (cluster.slice_v4("three", [0]), cluster.slice_v6("three", [0]));
    cluster.lab.manifests().write("three.yaml", &[&third, &v4, &v6]).expect("manifests");
    ["10.96.0.3:53", "[fd00:10:96::3]:53", "[::ffff:10.96.0.3]:53"].map(at)
}

/// Two Services share a pod: its answer is from the one that was asked last, whoever else was asked since.
#[test]
fn of_services_that_share_a_pod_the_one_that_was_asked_last_is_named() {
    let cluster = new_cluster!(2);
    let third = share_a_pod(&cluster);
    let _agent = start(&cluster);
    for (kind, shared) in of_every_kind(&cluster).into_iter().zip(third) {
        let [first, other] = kind.services;
        cluster.client.run(|| {
            let asker = Asker::for_address(first).expect("a socket");
            for (before, last) in [(first, shared), (shared, first)] {
                assert_eq!(asker.ask(before).expect("an answer").1, before);
                for vip in [last, other] {
                    asker.socket().send_to(b"sendto", vip).expect("sendto");
                    wait_for_answer(&asker);
                }
                let mut sources = [source(&asker), source(&asker)];
                sources.sort_by_key(|source| *source == other);
                assert_eq!(sources, [last, other], "after {before}");
            }
        });
    }
}

/// However long ago the other one was asked: a socket counts its uses of records, and the count begins anew.
#[test]
fn a_service_that_was_asked_long_ago_names_nothing() {
    /// More than twice what the count holds.
    const TURNS: u32 = 40_000;
    let cluster = new_cluster!(2);
    let [long_ago, ..] = share_a_pod(&cluster);
    let _agent = start(&cluster);
    let [Addresses { services, .. }, ..] = of_every_kind(&cluster);
    cluster.client.run(|| {
        let asker = Asker::v4().expect("a socket");
        assert_eq!(asker.ask(long_ago).expect("an answer").1, long_ago);
        for (turn, vip) in (0..TURNS).zip(services.into_iter().cycle()) {
            assert_eq!(asker.ask(vip).expect("an answer").1, vip, "turn {turn}");
        }
    });
}

/// A connected socket asks its pod by another name: what the kernel takes as the peer's goes by the peer's name, then and
/// when the socket is connected elsewhere.
#[test]
fn what_the_peer_answers_goes_by_the_peers_name() {
    let cluster = new_cluster!(2);
    let third = share_a_pod(&cluster);
    let _agent = start(&cluster);
    for (kind, shared) in of_every_kind(&cluster).into_iter().zip(third) {
        let Addresses { services: [vip, other], pods: [pod, _] } = kind;
        for peer in [vip, pod] {
            cluster.client.run(|| {
                let asker = Asker::for_address(vip).expect("a socket");
                // It knows the Service already.
                assert_eq!(asker.ask(shared).expect("an answer").1, shared);
                asker.connect(peer).expect("connect");
                for _ in 0..2 {
                    asker.socket().send_to(b"sendto", shared).expect("sendto");
                    wait_for_answer(&asker);
                    assert_eq!(source(&asker), peer, "{shared}, while connected to {peer}");
                }
                asker.socket().send(b"send").expect("send");
                wait_for_answer(&asker);
                asker.connect(other).expect("connect");
                assert_eq!(source(&asker), peer, "{shared}, before it was connected to {other}");
            });
        }
    }
}

/// A socket has records of its own for a few Services; when the oldest makes room, it does not name answers that were
/// asked of its pod directly.
#[test]
fn a_pod_that_is_asked_directly_answers_as_itself_whoever_else_is_asked() {
    /// More than a socket has records of its own.
    const OTHERS: u8 = 8;
    let cluster = new_cluster!(2);
    for number in 0..OTHERS {
        let name = format!("other-{number}");
        let service = service(&name, &[&format!("10.96.1.{number}")]);
        let slice = cluster.slice_v4(&name, [1]);
        cluster.lab.manifests().write(&format!("{name}.yaml"), &[&service, &slice]).expect("manifests");
    }
    let _agent = start(&cluster);
    let [Addresses { services: [vip, _], pods: [pod, _] }, ..] = of_every_kind(&cluster);
    cluster.client.run(|| {
        let asker = Asker::v4().expect("a socket");
        assert_eq!(asker.ask(vip).expect("an answer").1, vip);
        asker.socket().send_to(b"sendto", pod).expect("sendto");
        wait_for_answer(&asker);
        for number in 0..OTHERS {
            asker.socket().send_to(b"sendto", at(&format!("10.96.1.{number}:53"))).expect("sendto");
        }
        assert_eq!(source(&asker), pod);
    });
}
