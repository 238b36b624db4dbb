//! An unconnected UDP socket stays with an endpoint while that one serves: QUIC depends on it.

use std::net::SocketAddr;

use sidestep_tests::{
    cluster,
    cluster::{Cluster, DNS, at, service, slice, spread},
    eventually,
    manifest::{Conditions, EndpointSlice, Protocol, Service},
    traffic::{Asker, UdpServer},
};

/// One socket and one VIP: one endpoint.
#[test]
fn a_socket_stays_with_its_endpoint() {
    let cluster = cluster!(3);
    cluster.serve("dns", &service("dns", &["10.96.0.53"])).expect("manifests");
    let _agent = cluster.lab.agent().expect("an agent");
    let vip = at("10.96.0.53:53");
    cluster.client.run(|| {
        let asker = Asker::v4().expect("a socket");
        let answers = spread(60, || asker.ask(vip).map(|(answer, _)| answer.server));
        assert_eq!(answers.len(), 1, "{answers:?}");
    });
}

/// ST-5: a socket stays while its endpoint drains, and goes elsewhere once it is gone.
#[test]
fn a_socket_leaves_an_endpoint_that_is_gone_but_not_one_that_drains() {
    let cluster = cluster!(2);
    cluster.lab.manifests().write("dns.yaml", &[&service("dns", &["10.96.0.53"])]).expect("manifests");
    cluster.endpoints("dns", &cluster.slice_v4("dns", 0..2)).expect("manifests");
    let _agent = cluster.lab.agent().expect("an agent");
    let vip = at("10.96.0.53:53");
    cluster.client.run(|| {
        let asker = Asker::v4().expect("a socket");
        let first = asker.ask(vip).expect("an answer").0.server;
        let (old, new) = if first == "pod-0" { (0, 1) } else { (1, 0) };
        let (old, new) = (&cluster.backends[old], &cluster.backends[new]);
        let with_old = |conditions| slice("dns").endpoint(old.place.v4, conditions).ready(new.place.v4);

        cluster.endpoints("dns", &with_old(Conditions::DRAINING)).expect("manifests");
        eventually("new sockets avoid the endpoint that drains", || {
            let answers = spread(20, || Asker::v4()?.ask(vip).map(|(answer, _)| answer.server));
            !answers.contains_key(&first)
        });
        assert_eq!(asker.ask(vip).expect("an answer").0.server, first, "the old socket stays");

        cluster.endpoints("dns", &with_old(Conditions::GONE)).expect("manifests");
        eventually("the old socket goes elsewhere", || {
            let (answer, source) = asker.ask(vip).expect("an answer");
            assert_eq!(source, vip);
            answer.server != first
        });
    });
}

/// More VIPs than a socket remembers by itself: every answer has the right source, and every VIP keeps its endpoint.
#[test]
fn a_socket_talks_to_twenty_services_with_an_endpoint_each() {
    let cluster = cluster!(3);
    let vips: Vec<SocketAddr> = (1..=20).map(|number| at(&format!("10.96.2.{number}:53"))).collect();
    let servers: Vec<UdpServer> = vips
        .iter()
        .zip(6001..)
        .flat_map(|(vip, port)| {
            let name = format!("dns-{port}");
            let service = Service::new(&name, &[&vip.ip().to_string()]).port(DNS, Protocol::Udp, 53);
            let slice = EndpointSlice::new(&name).port(DNS, Protocol::Udp, port);
            let slice = cluster.backends.iter().fold(slice, |slice, backend| slice.ready(backend.place.v4));
            cluster.lab.manifests().write(&format!("{name}.yaml"), &[&service, &slice]).expect("manifests");
            cluster.backends.iter().map(move |backend| {
                let name = format!("{}:{port}", backend.place.name());
                UdpServer::start(&backend.place, &name, port).expect("a server")
            })
        })
        .collect();
    let _agent = cluster.lab.agent().expect("an agent");
    every_answer_has_its_source(&cluster, &vips);
    drop(servers);
}

/// The same where all Services lead to the same endpoint: the one that was asked last is the source.
#[test]
fn a_socket_talks_to_twenty_services_that_share_an_endpoint() {
    let cluster = cluster!(1);
    let vips: Vec<SocketAddr> = (1..=20).map(|number| at(&format!("10.96.2.{number}:53"))).collect();
    for (number, vip) in vips.iter().enumerate() {
        let name = format!("dns-{number}");
        cluster.serve(&name, &service(&name, &[&vip.ip().to_string()])).expect("manifests");
    }
    let _agent = cluster.lab.agent().expect("an agent");
    every_answer_has_its_source(&cluster, &vips);
}

fn every_answer_has_its_source(cluster: &Cluster, vips: &[SocketAddr]) {
    cluster.client.run(|| {
        let asker = Asker::v6().expect("a socket");
        let ask = |vip: &SocketAddr| {
            let mapped = at(&format!("[::ffff:{}]:53", vip.ip()));
            let (answer, source) = asker.ask(mapped).expect("an answer");
            assert_eq!(source, mapped);
            answer.server
        };
        let first: Vec<String> = vips.iter().map(ask).collect();
        for _ in 0..3 {
            let again: Vec<String> = vips.iter().rev().map(ask).collect();
            assert!(again.iter().rev().eq(first.iter()), "{first:?}\n{again:?}");
        }
    });
}

/// Two Services with the same endpoint: the source of an answer is the VIP that was asked last.
#[test]
fn two_services_share_an_endpoint() {
    let cluster = cluster!(1);
    for (name, ip) in [("one", "10.96.0.1"), ("two", "10.96.0.2")] {
        cluster.serve(name, &service(name, &[ip])).expect("manifests");
    }
    let _agent = cluster.lab.agent().expect("an agent");
    cluster.client.run(|| {
        let asker = Asker::v4().expect("a socket");
        for vip in [at("10.96.0.1:53"), at("10.96.0.2:53"), at("10.96.0.1:53"), at("10.96.0.2:53")] {
            assert_eq!(asker.ask(vip).expect("an answer").1, vip);
        }
    });
}
