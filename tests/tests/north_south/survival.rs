//! Ten thousand connections through a NodePort survive changes of their Service, restarts of the agent, and a flood.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use sidestep_tests::{
    Agent, Place, TwoNodes,
    cluster::HTTP_PORT,
    eventually,
    frames::FrameSender,
    traffic::{
        connect,
        crowd::{Crowd, CrowdServer, serve_if_asked},
    },
    two_nodes,
    two_nodes::{Variant, node_ports, web},
};

/// Connections to each NodePort address: five thousand in each family.
const EACH: usize = 5_000;
/// The capacity of FLOWS: five times the connections that the test keeps open.
const FLOWS: u32 = 50_000;
/// SYNs of the flood: ten times the capacity of FLOWS.
const FLOOD: u32 = 10 * FLOWS;
/// Changes of the Service's endpoints.
const CHANGES: usize = 100;

/// The server of the connections, in a process of its own.
#[test]
#[ignore = "not a test, but a server that a test starts"]
fn a_server_of_many() {
    serve_if_asked().expect("it serves");
}

/// ST-4: other endpoints are deleted, the agent restarts and is killed, endpoints change a hundred times, and ten times
/// as many SYNs arrive as FLOWS has room for. A SYN and its answer confirm no connection, so the flood evicts only its
/// own records.
#[test]
fn ten_thousand_connections_through_a_node_port_survive() {
    let nodes = two_nodes!(Variant::DIRECT);
    let pods: Vec<Place> = [("here-0", true), ("there-0", false), ("here-1", true), ("there-1", false)]
        .map(|(name, here)| if here { nodes.pod_here(name) } else { nodes.pod_there(name) }.expect("a pod"))
        .into();
    let pods: Vec<&Place> = pods.iter().collect();
    let _servers: Vec<CrowdServer> = (1..)
        .zip(&pods)
        .map(|(mark, pod)| {
            CrowdServer::start(pod, "survival::a_server_of_many", HTTP_PORT, mark).expect("a server")
        })
        .collect();
    nodes.publish_places("web", &web(), &pods).expect("manifests");
    let agent = Agent::reading(nodes.lab()).arguments(["--max-flows".to_owned(), FLOWS.to_string()]);
    let mut agent = agent.started(nodes.lab()).expect("an agent");

    let start = Instant::now();
    let said = |what: &str| eprintln!("{:>6.1} s {what}", start.elapsed().as_secs_f32());
    let addresses = node_ports().map(|way| way.tcp);
    let mut crowd = Crowd::gather(nodes.outside(), &addresses, EACH).unwrap_or_else(|error| {
        let status = nodes.lab().sidestep(&["status"]).expect("status");
        panic!("{error:#}\n{}", String::from_utf8_lossy(&status.stdout));
    });
    assert_eq!(crowd.len(), 2 * EACH);
    assert!(crowd.shares()[1..=4].iter().all(|share| *share > EACH / 4), "a server has too few connections");
    said("gathered");

    nodes.publish_places("web", &web(), &pods[..1]).expect("manifests");
    settle(&nodes);
    crowd.check().expect("the other endpoints are deleted");
    said("the other endpoints are deleted");

    assert!(agent.stop().expect("it stops").success());
    crowd.check().expect("without an agent");
    agent.restart(nodes.lab()).expect("restart");
    crowd.check().expect("the agent was restarted");
    agent.kill().expect("kill -9");
    crowd.check().expect("the agent was killed");
    agent.restart(nodes.lab()).expect("restart");
    crowd.check().expect("the agent is back");
    said("restart and kill");

    for change in 0..CHANGES {
        let some = [&pods[..2], &pods[1..], &pods[2..], &pods[3..], &pods[..1]][change % 5];
        nodes.publish_places("web", &web(), some).expect("manifests");
        std::thread::sleep(Duration::from_millis(10));
        if change % 25 == 24 {
            crowd.check().expect("endpoints change");
        }
    }
    nodes.publish_places("web", &web(), &pods).expect("manifests");
    settle(&nodes);
    crowd.check().expect("endpoints have changed");
    said("endpoints have changed");

    std::thread::scope(|scope| {
        let flood = scope.spawn(|| flood(&nodes));
        while !flood.is_finished() {
            crowd.check().expect("during the flood");
            std::thread::sleep(Duration::from_millis(200));
        }
        flood.join().expect("the flood");
    });
    said("the flood is over");
    let status = nodes.lab().sidestep(&["status"]).expect("status");
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    let line = status.lines().find(|line| line.contains("default/web:http/TCP ")).expect("the Service");
    let counted = line.split_whitespace().filter_map(|word| word.parse::<u32>().ok());
    assert!(
        counted.max().is_some_and(|connections| connections >= FLOOD),
        "not every SYN began a flow: {line}"
    );
    crowd.check().expect("after the flood");
    settle(&nodes);
    said("done");
}

/// Waits until new connections work, in both families.
fn settle(nodes: &TwoNodes) {
    for way in node_ports() {
        eventually("new connections", || nodes.outside().run(|| connect(way.tcp)).is_ok());
    }
}

/// Sends SYNs from addresses that no host has, as fast as possible.
fn flood(nodes: &TwoNodes) {
    let [v4, _] = node_ports();
    let mut sender = FrameSender::new(nodes).expect("a packet socket");
    for number in 0..FLOOD {
        // An odd step visits every address of 100.64.0.0/10 once, in no particular order.
        let address = Ipv4Addr::from_bits(0x6440_0000 | number.wrapping_mul(2_654_435) & 0x003f_ffff);
        let port = 1024 + u16::try_from(number % 60_000).expect("a port");
        sender.syn(SocketAddr::new(IpAddr::V4(address), port), v4.tcp, number).expect("sent");
    }
}
