//! The source ports of masqueraded flows: a range so small that all are in use.

use std::net::TcpStream;

use sidestep_tests::{
    Agent, TwoNodes,
    cluster::Backend,
    eventually, in_every_variant,
    traffic::{Conversation, ask},
    two_nodes::{Rules, WayIn, node_ports, web},
};

in_every_variant!(when_ports_run_out_new_flows_are_dropped_and_old_ones_go_on);

/// The size of the range.
const RANGE: &str = "61000-61015";
const PORTS: usize = 16;

fn agent(nodes: &TwoNodes) -> Agent {
    Agent::reading(nodes.lab())
        .arguments(["--source-port-range", RANGE])
        .started(nodes.lab())
        .expect("an agent")
}

/// No two flows get the same port towards one endpoint, each further endpoint adds as many ports, and released ports
/// are used again.
fn when_ports_run_out_new_flows_are_dropped_and_old_ones_go_on(nodes: &TwoNodes) {
    if nodes.variant().rules == Rules::Flannel {
        // The CNI's rules masquerade instead, with ports of their own.
        return;
    }
    let (one, another) =
        (nodes.backend_there("one").expect("a pod"), nodes.backend_there("another").expect("a pod"));
    for way in node_ports() {
        nodes.publish("web", &web(), &[&one]).expect("manifests");
        let _agent = agent(nodes);
        let mut flows = fill(nodes, way, &one);
        let status = nodes.lab().sidestep(&["status"]).expect("status");
        let status = String::from_utf8_lossy(&status.stdout).into_owned();
        assert!(status.contains("source-ports-exhausted"), "{status}");

        nodes.publish("web", &web(), &[&another]).expect("manifests");
        eventually("the other endpoint answers", || {
            nodes.outside().run(|| ask(way.tcp)).is_ok_and(|answer| answer.server == "another")
        });
        let more = fill(nodes, way, &another);
        for flow in &mut flows {
            assert_eq!(flow.ask().expect("an answer").server, "one");
        }
        drop(more);
        drop(flows);
        nodes.publish("web", &web(), &[&one]).expect("manifests");
        eventually("a released port is used again", || {
            nodes.outside().run(|| ask(way.tcp)).is_ok_and(|answer| answer.server == "one")
        });
    }
}

/// Opens connections until no port is left; every one of them works.
fn fill(nodes: &TwoNodes, way: WayIn, server: &Backend) -> Vec<Conversation> {
    let mut flows = Vec::new();
    let mut ports = std::collections::BTreeSet::new();
    while let Ok(mut flow) = nodes.outside().run(|| {
        let stream = TcpStream::connect_timeout(&way.tcp, std::time::Duration::from_millis(600))?;
        stream.set_read_timeout(Some(sidestep_tests::traffic::PATIENCE))?;
        Conversation::over(stream)
    }) {
        let answer = flow.ask().expect("an answer");
        assert_eq!(answer.server, server.place.name());
        assert!(ports.insert(answer.client.port()), "two flows have the source of {answer:?}");
        flows.push(flow);
        assert!(flows.len() <= PORTS, "more flows than ports");
    }
    assert!(flows.len() > PORTS / 2, "{} of {PORTS} ports were used", flows.len());
    flows
}
