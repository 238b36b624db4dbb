//! TCP through a ClusterIP, in the three kinds of socket addresses that programs use.

use sidestep_tests::{
    cluster,
    cluster::{HTTP_PORT, at, service, spread},
    traffic::{Conversation, ask},
};

/// EP-13, PO-6: every endpoint gets its share, the program sees the VIP as its peer, and the pod sees the client.
#[test]
fn tcp_reaches_every_endpoint_and_the_peer_is_the_vip() {
    let cluster = cluster!(3);
    cluster.serve("web", &service("web", &["10.96.0.10", "fd00:10:96::10"])).expect("manifests");
    let _agent = cluster.lab.agent().expect("an agent");

    for vip in [at("10.96.0.10:80"), at("[fd00:10:96::10]:80"), at("[::ffff:10.96.0.10]:80")] {
        let answers = cluster.client.run(|| {
            spread(60, || {
                let mut conversation = Conversation::with(vip)?;
                let answer = conversation.ask()?;
                assert_eq!(conversation.peer()?, vip, "the peer is what the program asked for");
                assert!(cluster.client.addresses().contains(&answer.client.ip()), "{answer:?}");
                assert_eq!(answer.local.port(), HTTP_PORT);
                std::io::Result::Ok(answer.server)
            })
        });
        assert_eq!(answers.len(), 3, "{vip}: {answers:?}");
    }
}

/// A connection goes on with the endpoint that it has, and the endpoint hears nothing of the VIP.
#[test]
fn a_connection_stays_with_its_endpoint() {
    let cluster = cluster!(3);
    cluster.serve("web", &service("web", &["10.96.0.10"])).expect("manifests");
    let _agent = cluster.lab.agent().expect("an agent");

    cluster.client.run(|| {
        let mut conversation = Conversation::with(at("10.96.0.10:80")).expect("a connection");
        let first = conversation.ask().expect("an answer");
        for _ in 0..50 {
            assert_eq!(conversation.ask().expect("an answer"), first);
        }
    });
}

/// The node's own processes are clients like any other.
#[test]
fn the_nodes_own_processes_reach_services() {
    let cluster = cluster!(1);
    cluster.serve("web", &service("web", &["10.96.0.10", "fd00:10:96::10"])).expect("manifests");
    let _agent = cluster.lab.agent().expect("an agent");

    for vip in [at("10.96.0.10:80"), at("[fd00:10:96::10]:80")] {
        let answer = cluster.lab.node().run(|| ask(vip)).expect("an answer");
        assert_eq!(answer.server, "pod-0");
    }
}

/// A process beside the cgroup that Sidestep is attached to sees no Service.
#[test]
fn processes_outside_of_the_cgroup_are_left_alone() {
    let cluster = cluster!(1);
    cluster.serve("web", &service("web", &["10.96.0.10"])).expect("manifests");
    let _agent = cluster.lab.agent().expect("an agent");

    let outside = cluster.client.in_cgroup(cluster.lab.outside());
    let result = outside.run(|| ask(at("10.96.0.10:80")));
    assert!(result.is_err(), "nobody routes a VIP: {result:?}");
    cluster.client.run(|| ask(at("10.96.0.10:80"))).expect("and inside it is one");
}
