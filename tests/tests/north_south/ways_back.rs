//! Answers leave the node by the device on which their connection arrived. Connections to an endpoint whose answers
//! would bypass the node are masqueraded, and with `masqueradeAll` all connections.

use std::net::{IpAddr, SocketAddr};

use sidestep_tests::{
    Agent, Place, TwoNodes,
    agent::NODE_NAME,
    cluster::{Backend, DNS_PORT, HTTP_PORT, slice},
    in_every_variant, in_variant,
    topology::{GATEWAY_V4, GATEWAY_V6},
    traffic::{Answer, Asker, Conversation, ask, connect_from},
    two_nodes::{DNS_NODE_PORT, HTTP_NODE_PORT, node_ports, web},
    wiretap::{Seen, Wiretap},
};

use crate::serve;

in_every_variant!(
    answers_leave_by_the_device_on_which_the_connection_arrived,
    with_masquerade_all_every_connection_is_masqueraded
);

/// Only with direct routing, and without rules that forward for the pods' ranges alone.
mod an_endpoint_on_the_uplinks_own_link_is_masqueraded {
    super::in_variant!(an_endpoint_on_the_uplinks_own_link_is_masqueraded, direct, DIRECT);
}

/// The addresses of a client behind `outside`: the node has only its default route to it.
const FAR: [&str; 2] = ["100.64.0.1", "2001:db8:64::1"];

/// PO-28: the endpoint's own routing rules (`ip rule from POD`) do not divert answers.
fn answers_leave_by_the_device_on_which_the_connection_arrived(nodes: &TwoNodes) {
    let server = nodes.backend_here("here").expect("a pod");
    let router = nodes.second_uplink().expect("a second uplink");
    nodes.lead_out_by(&router, &server.place).expect("rules");
    let [v4, v6] = FAR;
    let far = format!("addr add {v4}/32 dev lo\naddr add {v6}/128 dev lo nodad\n");
    nodes.outside().namespace().ip_batch(&far).expect("addresses");
    let far = FAR.map(|address| address.parse().expect("an address"));
    for local in [false, true] {
        let service = if local { web().external_traffic_local() } else { web() };
        nodes.publish("web", &service, &[&server]).expect("manifests");
        let _agent = nodes.lab().agent().expect("an agent");
        let (first, second) = (wiretap(nodes.outside()), wiretap(&router));
        for sources in [nodes.outside().addresses(), far] {
            for (source, way) in sources.into_iter().zip(node_ports()) {
                let who = format!("{source} at {way:?}, policy Local: {local}");
                let asked = nodes.outside().run(|| ask_from(source, way.tcp, way.udp));
                let astray = answers(&second);
                assert!(astray.is_empty(), "{who}: {asked:?}; answers left by the other device: {astray:?}");
                for answer in asked.unwrap_or_else(|error| panic!("{who}: {error}")) {
                    assert_eq!(answer.server, "here", "{who}");
                    assert_eq!(answer.client.ip(), source, "{who}");
                }
                let right = answers(&first);
                for frontend in [way.tcp, way.udp] {
                    assert!(right.iter().any(|seen| seen.source == frontend), "{who}: {right:?}");
                }
            }
        }
    }
}

fn wiretap(place: &Place) -> Wiretap {
    Wiretap::on(place, "uplink").expect("a wiretap")
}

/// Packets from a NodePort, or, untranslated, from a pod's own ports.
fn answers(wire: &Wiretap) -> Vec<Seen> {
    let ports = [HTTP_NODE_PORT, DNS_NODE_PORT, HTTP_PORT, DNS_PORT];
    let mut seen = wire.seen().expect("packets");
    seen.retain(|seen| ports.contains(&seen.source.port()));
    seen
}

/// Sends two requests over TCP and two over UDP.
fn ask_from(source: IpAddr, tcp: SocketAddr, udp: SocketAddr) -> std::io::Result<[Answer; 4]> {
    let mut talk = Conversation::over(connect_from(source, tcp)?)?;
    let asker = Asker::bound_to(SocketAddr::new(source, 0))?;
    Ok([talk.ask()?, talk.ask()?, asker.ask(udp)?.0, asker.ask(udp)?.0])
}

/// PO-28: the uplink is a port of a bridge, and the pod is on that bridge: its answers to a client on the same link
/// would bypass the node.
fn an_endpoint_on_the_uplinks_own_link_is_masqueraded(nodes: &TwoNodes) {
    let server = Backend::start(nodes.pod_on_the_lan("on-the-lan").expect("a pod")).expect("servers");
    for address in server.place.addresses() {
        nodes
            .outside()
            .run(|| ask((address, HTTP_PORT).into()))
            .expect("the pod reaches the client directly");
    }
    let [v4, v6] = server.place.addresses().map(|address| slice("web").on_node(NODE_NAME).ready(address));
    nodes.lab().manifests().write("web.yaml", &[&web(), &v4, &v6]).expect("manifests");
    let _agent = nodes.lab().agent().expect("an agent");
    let [v4, v6] = FAR;
    let far = format!("addr add {v4}/32 dev lo\naddr add {v6}/128 dev lo nodad\n");
    nodes.outside().namespace().ip_batch(&far).expect("addresses");
    let far = FAR.map(|address| address.parse().expect("an address"));
    for sources in [nodes.outside().addresses(), far] {
        for (source, way) in sources.into_iter().zip(node_ports()) {
            let asked = nodes.outside().run(|| ask_from(source, way.tcp, way.udp));
            for answer in asked.unwrap_or_else(|error| panic!("{source} at {way:?}: {error}")) {
                assert_eq!(answer.server, "on-the-lan");
                assert_eq!(answer.client.ip(), way.tcp.ip(), "{source} at {way:?}");
            }
        }
    }
}

/// CF-10: `masqueradeAll` of either mode: local endpoints see the node's address, too, as remote ones always do.
fn with_masquerade_all_every_connection_is_masqueraded(nodes: &TwoNodes) {
    let servers = [nodes.backend_here("here").expect("a pod"), nodes.backend_there("there").expect("a pod")];
    let own: Vec<IpAddr> = nodes
        .node()
        .addresses()
        .into_iter()
        .chain(nodes.preferred_sources())
        .chain([GATEWAY_V4.into(), GATEWAY_V6.into()])
        .collect();
    for mode in ["nftables", "iptables"] {
        for server in &servers {
            nodes.publish("web", &web(), &[server]).expect("manifests");
            let _agent = configured(nodes, &format!("mode: {mode}\n{mode}: {{masqueradeAll: true}}"));
            for (source, way) in nodes.outside().addresses().into_iter().zip(node_ports()) {
                let asked = nodes.outside().run(|| ask_from(source, way.tcp, way.udp));
                for answer in asked.unwrap_or_else(|error| panic!("{mode}, {way:?}: {error}")) {
                    assert_eq!(answer.server, server.place.name());
                    assert!(own.contains(&answer.client.ip()), "{mode}, {way:?}: {answer:?}");
                }
            }
        }
    }
    // Without it, the endpoint sees the client's address again.
    let _agent = serve(nodes, &[&servers[0]]);
    for (source, way) in nodes.outside().addresses().into_iter().zip(node_ports()) {
        let asked = nodes.outside().run(|| ask_from(source, way.tcp, way.udp)).expect("answers");
        assert!(asked.iter().all(|answer| answer.client.ip() == source), "{way:?}: {asked:?}");
    }
}

/// An agent with these lines in its configuration.
fn configured(nodes: &TwoNodes, lines: &str) -> Agent {
    let file = nodes.lab().run_directory().join("kube-proxy.conf");
    let text =
        format!("apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n{lines}\n");
    std::fs::write(&file, text).expect("written");
    Agent::reading(nodes.lab()).arguments(["--config".into(), file]).started(nodes.lab()).expect("an agent")
}
