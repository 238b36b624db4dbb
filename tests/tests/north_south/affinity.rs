//! `sessionAffinity: ClientIP` for north-south clients, which are identified by address.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr},
};

use sidestep_tests::{
    TwoNodes,
    cluster::spread,
    in_every_variant,
    traffic::{Conversation, ask, connect_from},
    two_nodes::{ways_in, web},
};

in_every_variant!(a_client_stays_with_its_endpoint, clients_are_told_apart_by_their_address);

fn serve(nodes: &TwoNodes) -> ([sidestep_tests::cluster::Backend; 4], sidestep_tests::Agent) {
    let servers = [
        nodes.backend_here("here-0").expect("a pod"),
        nodes.backend_here("here-1").expect("a pod"),
        nodes.backend_there("there-0").expect("a pod"),
        nodes.backend_there("there-1").expect("a pod"),
    ];
    let service = web().client_ip_affinity(600);
    nodes.publish("web", &service, &servers.each_ref()).expect("manifests");
    let agent = nodes.lab().agent().expect("an agent");
    (servers, agent)
}

/// ST-2: affinity holds for every address of the Service, in each family, and across a restart of the agent.
fn a_client_stays_with_its_endpoint(nodes: &TwoNodes) {
    let (_servers, mut agent) = serve(nodes);
    let who = || -> [BTreeSet<String>; 2] {
        [true, false].map(|v4| {
            let ways = ways_in().into_iter().filter(|way| way.tcp.is_ipv4() == v4);
            let asked = ways.flat_map(|way| {
                nodes.outside().run(|| spread(10, || ask(way.tcp).map(|answer| answer.server)))
            });
            asked.map(|(server, _)| server).collect()
        })
    };
    let before = who();
    assert!(before.iter().all(|servers| servers.len() == 1), "{before:?}");
    agent.kill().expect("kill -9");
    agent.restart(nodes.lab()).expect("restart");
    assert_eq!(who(), before);
}

/// ST-2: a host with sixty addresses is sixty clients, enough that chance leaves out no endpoint.
fn clients_are_told_apart_by_their_address(nodes: &TwoNodes) {
    let (_servers, _agent) = serve(nodes);
    let lines = |number| {
        format!(
            "addr add 192.0.2.{number}/24 dev uplink\naddr add 2001:db8:192::{number}/64 dev uplink nodad\n"
        )
    };
    let clients = 110..170;
    let lines: String = clients.clone().map(lines).collect();
    nodes.outside().namespace().ip_batch(&lines).expect("addresses");
    for way in ways_in() {
        let mut chosen = BTreeSet::new();
        for number in clients.clone() {
            let source = if way.tcp.is_ipv4() {
                format!("192.0.2.{number}")
            } else {
                format!("2001:db8:192::{number}")
            };
            let source: IpAddr = source.parse().expect("an address");
            let answers = nodes.outside().run(|| spread(3, || ask_from(source, way.tcp)));
            assert_eq!(answers.len(), 1, "{source} at {way:?}: {answers:?}");
            chosen.extend(answers.into_keys());
        }
        assert_eq!(chosen.len(), 4, "{way:?}: {chosen:?}");
    }
}

fn ask_from(source: IpAddr, address: SocketAddr) -> io::Result<String> {
    Ok(Conversation::over(connect_from(source, address)?)?.ask()?.server)
}
