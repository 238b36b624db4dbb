//! What comes out of pods and no socket hook has translated: packets to Services, served at the node's end of each pod's
//! wire. The clients' sockets are in a cgroup without programs, and are served by packets alone.
//!
//! Scenarios run with direct routing and with a VXLAN, each without and with a CNI's rules, in both families.

mod as_from_sockets;
mod behind_pods;
mod beside_kube_proxy;
mod frontends;
mod new_pods;
mod node_local_dns;
mod passed_by;
mod refusals;
mod sizes;

use std::net::IpAddr;

use sidestep_tests::{
    Agent, Place, TwoNodes,
    cluster::Backend,
    topology::CLUSTER_IPS,
    traffic::{Answer, Asker, Conversation},
    two_nodes::{WayIn, web},
};

/// Publishes the Service `web` with these endpoints, and starts the agent.
fn serve(nodes: &TwoNodes, endpoints: &[&Backend]) -> Agent {
    nodes.publish("web", &web(), endpoints).expect("manifests");
    agent(nodes)
}

fn agent(nodes: &TwoNodes) -> Agent {
    nodes.lab().agent().expect("an agent")
}

/// A pod on the node whose sockets no program serves.
fn client(nodes: &TwoNodes, name: &str) -> Place {
    by_packets(nodes, &nodes.pod_here(name).expect("a pod"))
}

/// The pod, for sockets that no program serves; packets to Services follow its default route, as on real nodes.
fn by_packets(nodes: &TwoNodes, pod: &Place) -> Place {
    let routes = CLUSTER_IPS.map(|range| format!("route del {range}\n")).concat();
    pod.namespace().ip_batch(&routes).expect("routes");
    pod.in_cgroup(nodes.lab().outside())
}

/// Two requests on a connection, and two on a UDP socket.
fn ask(client: &Place, way: WayIn) -> std::io::Result<[Answer; 4]> {
    client.run(|| {
        let mut talk = Conversation::with(way.tcp)?;
        let asker = Asker::for_address(way.udp)?;
        let by_udp = || {
            let (answer, from) = asker.ask(way.udp)?;
            if from == way.udp { Ok(answer) } else { Err(std::io::Error::other(format!("{from} answered"))) }
        };
        Ok([talk.ask()?, talk.ask()?, by_udp()?, by_udp()?])
    })
}

/// The same; all are this server's, which has seen this client.
fn assert_served(client: &Place, way: WayIn, server: &str, seen: impl Fn(IpAddr) -> bool) {
    let answers = ask(client, way).unwrap_or_else(|error| panic!("{way:?}: {error}"));
    for answer in answers {
        assert!(answer.server == server && seen(answer.client.ip()), "{way:?}: {answer:?}");
    }
}
