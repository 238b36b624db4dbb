//! The demo's scenes, one function per row.

mod changes;
mod requests;

pub(super) use changes::{a_pod_goes_away, the_agent_crashes};

use std::time::Instant;

use sidestep_tests::{
    Lab,
    cluster::at,
    traffic::{Asker, connect, is_refused},
};

use super::{cast::Cast, table::Row};

/// TCP to a ClusterIP: every pod gets its share of the connections.
pub(super) fn web(cast: &Cast) -> Row {
    requests::http("web: TCP, ClusterIP", &cast.client, "10.96.0.10:80", 3)
}

/// The same in IPv6.
pub(super) fn web_over_ipv6(cast: &Cast) -> Row {
    requests::http("web6: TCP, IPv6", &cast.client, "[fd00:10:96::10]:80", 3)
}

/// The same with an IPv6 socket and a v4-mapped address.
pub(super) fn web_over_mapped_ipv6(cast: &Cast) -> Row {
    requests::http("web6: TCP, v4-mapped", &cast.client, "[::ffff:10.96.0.16]:80", 3)
}

/// A NodePort at the node's address, from a pod.
pub(super) fn node_port(cast: &Cast) -> Row {
    requests::http("web: NodePort, from a pod", &cast.client, "192.0.2.10:30080", 3)
}

/// A NodePort at loopback, from a process of the node.
pub(super) fn node_port_on_loopback(lab: &Lab) -> Row {
    requests::http("web: NodePort, from the node", lab.node(), "127.0.0.1:30080", 3)
}

/// The same NodePort from a north-south client, translated at TC.
pub(super) fn node_port_from_outside(cast: &Cast) -> Row {
    requests::http("web: NodePort, north-south", &cast.outside, "192.0.2.10:30080", 3)
}

/// A north-south connection to a NodePort whose pod is on another node.
pub(super) fn node_port_of_a_pod_elsewhere(cast: &Cast) -> Row {
    requests::http("far: NodePort, remote pod", &cast.outside, "192.0.2.10:30081", 1)
}

/// UDP, a new socket for each query.
pub(super) fn names_unconnected(cast: &Cast) -> Row {
    requests::names("dns: UDP, sendto", cast, false)
}

/// UDP, a new connected socket for each query.
pub(super) fn names_connected(cast: &Cast) -> Row {
    requests::names("dns: UDP, connect", cast, true)
}

/// ClientIP affinity: one pod for one client.
pub(super) fn sticky(cast: &Cast) -> Row {
    requests::http("sticky: ClientIP affinity", &cast.client, "10.96.0.20:80", 1)
}

/// No endpoints: ECONNREFUSED at once, for every kind of socket.
pub(super) fn nobody_there(cast: &Cast) -> Row {
    refused("empty: no endpoints", cast, "10.96.0.99:80")
}

/// A port that the ClusterIP does not have.
pub(super) fn unknown_port(cast: &Cast) -> Row {
    let mut row = refused("dns: unknown port", cast, "10.96.0.53:54");
    cast.client.run(|| {
        let refused = Asker::v4().and_then(|asker| asker.ask(at("10.96.0.53:54")));
        row.expect(is_refused(&refused), || format!("sendto: {refused:?}"));
    });
    row
}

fn refused(what: &str, cast: &Cast, address: &str) -> Row {
    let mut row = Row::new(what, address);
    cast.client.run(|| {
        let start = Instant::now();
        let result = connect(at(address));
        let took = start.elapsed();
        row.requests = 1;
        row.expect(is_refused(&result), || format!("connect: {result:?}"));
        row.expect(took.as_millis() < 500, || format!("refused only after {took:?}"));
        row.note = format!("ECONNREFUSED after {} µs", took.as_micros());
    });
    row
}
